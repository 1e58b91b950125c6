#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Checks of all crates that are built the licences and where they come from, that none is there that must not be, that families of
crates come in one version each and all others too, but for known reasons, and that the tests build nothing twice.

It does what `cargo deny check licenses sources bans` would, from what cargo itself knows, in seconds and without a network: cargo-deny is
no package of Debian, takes minutes to build on two cores, and fetches its list of advisories from GitHub at each run. Advisories
are looked at by hand, where there is a network: `cargo install cargo-audit && cargo audit`."""

import json
import re
import subprocess
import sys

# Licences that may be linked into a plugin under MPL-2.0.
ALLOWED = {
    "MIT", "MIT-0", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Zlib",
    "MPL-2.0", "Unicode-3.0", "OpenSSL", "CC0-1.0", "0BSD", "BSL-1.0", "CDLA-Permissive-2.0", "Unlicense",
}
# Two versions of one of these in a process don't understand each other, or cost minutes to build.
FAMILIES = re.compile(r"^(gstreamer.*|glib.*|gio.*|str0m.*|dimpl|is|tokio|axum.*|rustls|aws-lc-.*|quinn-udp|mio|tracing.*)$")

# Where all come from, but for our own.
SOURCE = "registry+https://github.com/rust-lang/crates.io-index"
# What must not be there, and what is instead of it.
BANNED = {
    "native-tls": "TLS is rustls", "openssl-src": "OpenSSL is the system's", "ring": "the cryptography is aws-lc-rs",
    "async-std": "the runtime is tokio",
}
# What comes in several versions, and why that can't be helped from here.
GENERATIONS = "generations of RustCrypto: rml_rtmp has the oldest, argon2 and rtc-srtp the one before, dimpl and we the newest"
RAND = "generations of rand: rml_rtmp, sctp-proto and others have one each"
DUPLICATES = dict.fromkeys(
    ["aead", "aes", "block-buffer", "ccm", "cipher", "cpufeatures", "crypto-common", "ctr", "digest", "hmac", "inout", "sha1",
     "signature"], GENERATIONS)
DUPLICATES |= dict.fromkeys(["getrandom", "rand", "rand_chacha", "rand_core"], RAND)
DUPLICATES |= {
    "base64": "hyper-util is ahead of all others", "nom": "m3u8-rs has the one before", "syn": "clap and icu are ahead of all others",
    "thiserror": "rml_rtmp has the one before", "thiserror-impl": "rml_rtmp has the one before",
    "pem": "rcgen is ahead of jsonwebtoken",
    "hashbrown": "petgraph, of prost-build, has the one before", "itertools": "pbjson-build has the one before",
    "sha2": "rml_rtmp and livekit-token have ones before", "untrusted": "rustls-webpki is ahead of aws-lc-rs",
}


def allowed(expression):
    """Whether an SPDX expression can be fulfilled: one of the OR branches, of each all AND parts."""
    expression = expression.replace("/", " OR ").replace("(", " ").replace(")", " ")
    return any(
        all(part.strip() in ALLOWED for part in branch.split(" AND "))
        for branch in expression.split(" OR ")
    )


def packages_of(manifest):
    """All crates that a workspace is built from."""
    metadata = json.loads(subprocess.check_output(
        ["cargo", "metadata", "--format-version=1", "--locked", "--filter-platform=x86_64-unknown-linux-gnu",
         f"--manifest-path={manifest}"]))
    used = {node["id"] for node in metadata["resolve"]["nodes"]}
    return [p for p in metadata["packages"] if p["id"] in used]


def features(*edges):
    """Each crate of the workspace's build with the features that it is built with."""
    lines = subprocess.check_output(
        ["cargo", "tree", "--workspace", "--locked", "--prefix=none", "--target=x86_64-unknown-linux-gnu",
         "--format={p}|{f}", *edges], text=True).splitlines()
    found = {}
    for line in lines:
        name, separator, list_of = line.removesuffix(" (*)").partition("|")
        if separator:
            found.setdefault(name, set()).add(list_of)
    return found


packages = packages_of("Cargo.toml")
# A plugin with a lock file of its own: nothing of it is linked with the others.
apart = packages_of("plugins/companions/fmp4/Cargo.toml")
problems = [f"{p['name']} {p['version']}: licence {p['license']}" for p in packages + apart if not allowed(p["license"] or "none")]
tested = features()
# The metadata also have what a crate may be built with and is not.
built = {crate.split(" ")[0] + crate.split(" ")[1] for crate in tested}
versions = {}
for package in packages:
    if f"{package['name']}v{package['version']}" in built:
        versions.setdefault(package["name"], set()).add(package["version"])
problems += [f"{name} comes in {', '.join(sorted(v))}" for name, v in sorted(versions.items())
             if FAMILIES.match(name) and len(v) > 1]
problems += [f"{name} has other features in tests: {' / '.join(sorted(tested[name] - has))} (see tests/Cargo.toml)"
             for name, has in sorted(features("--edges=no-dev").items()) if tested[name] - has]
problems += [f"{p['name']} {p['version']} comes from {p['source']}" for p in packages + apart if p["source"] not in (None, SOURCE)]
shipped = {}
for crate in features("--edges=normal,build"):
    name, version = crate.split(" ")[:2]
    shipped.setdefault(name, set()).add(version)
problems += [f"{name} must not be there: {why}" for name, why in BANNED.items() if name in shipped]
problems += [f"{name} comes in {', '.join(sorted(v))}: use one, or say why not (DUPLICATES)"
             for name, v in sorted(shipped.items()) if len(v) > 1 and name not in DUPLICATES]
problems += [f"{name} comes in one version: take it out of DUPLICATES" for name in DUPLICATES if len(shipped.get(name, ())) < 2]
print(f"{len(packages) + len(apart)} crates: licences, sources, bans, versions and features checked")
if problems:
    print("\n".join(problems), file=sys.stderr)
sys.exit(bool(problems))
