// SPDX-License-Identifier: MPL-2.0
//! Runs a test in a network of its own, where only the loopback interface exists: what it sends
//! leaves the machine by no way, and its ports are free. Used by every test that speaks NDI.

use std::ffi::OsString;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// Set inside the namespace, so that the test knows that it is there.
const INSIDE: &str = "SFU_TEST_NETNS";
/// How long a test may take in there: less than nextest gives it, which would say nothing of it.
const LIMIT: Duration = Duration::from_secs(7 * 60);

/// Starts the calling test once more, as a process in new network and process namespaces, and
/// waits for it. `true` means: this is that process, go on with the test. `false` means: the test
/// has passed in there, and there is nothing left to do.
///
/// `test` is the test's full name as `cargo test -- --list` shows it, `environment` is what the
/// process gets on top of this one's. All processes that the test leaves behind end with it.
///
/// ```ignore
/// #[test]
/// fn ndi_by_name() {
///     if !netns::isolated("ndi_by_name::ndi_by_name", &ndi::environment()) {
///         return;
///     }
///     // Only `lo` from here on.
/// }
/// ```
///
/// # Panics
///
/// If the test fails in there, does not exist, or takes longer than seven minutes.
pub fn isolated(test: &str, environment: &[(&str, OsString)]) -> bool {
    if std::env::var_os(INSIDE).is_some_and(|inside| inside == test) {
        return true;
    }
    let program = std::env::current_exe().expect("a test knows its own program");
    let child = command()
        .arg(program)
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, test)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .spawn()
        .expect("unshare (package util-linux) must be installed");
    let status = wait(child);
    assert!(
        status.is_some_and(|status| status.success()),
        "{test} failed in its network namespace: {}",
        status.map_or_else(
            || format!("not done in {LIMIT:?}"),
            |status| status.to_string()
        )
    );
    false
}

/// In a namespace in which nothing is up yet: addresses of IPv6 are good at once. Else they change a second or two later, and
/// Chromium gives up what it is loading (`ERR_NETWORK_CHANGED`).
pub const SETTLED: &str =
    "sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0";

/// `unshare` with what makes the namespaces; the program to run is its next argument.
///
/// Loopback is brought up with `ip` (package iproute2). The first process of the process namespace
/// takes all others along when it ends, and ends itself when `unshare` is killed.
pub fn command() -> Command {
    let mut command = Command::new("unshare");
    if !is_root() {
        command.arg("--map-root-user");
    }
    command.args(["--net", "--pid", "--fork", "--kill-child", "--"]);
    let script = format!(r#"{SETTLED}; ip link set lo up && exec "$@""#);
    command.args(["sh", "-c", &script, "sh"]);
    command
}

/// Gives the namespace that the caller is in one interface more, with an address and the default route. libnice leaves
/// loopback alone, and Firefox announces only the address that the default route has.
///
/// # Panics
///
/// If `ip` (package iproute2) fails.
pub fn add_interface() {
    for arguments in [
        "link add viewers type veth peer name servers",
        "addr add 10.99.0.1/24 dev viewers",
        "link set viewers up",
        "link set servers up",
        "route add default dev viewers",
    ] {
        let status = Command::new("ip").args(arguments.split(' ')).status();
        assert!(
            status.is_ok_and(|status| status.success()),
            "ip {arguments}"
        );
    }
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

fn wait(mut child: Child) -> Option<ExitStatus> {
    let end = Instant::now() + LIMIT;
    while Instant::now() < end {
        if let Some(status) = child.try_wait().expect("the process is our own") {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}
