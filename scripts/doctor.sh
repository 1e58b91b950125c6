#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Says what is there and what is not, and what to do about each thing missing. Exit status 1 where something is.
set -uo pipefail

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/packages.sh
source "$ROOT/scripts/packages.sh"
failed=0

ok() { printf '  ok       %s\n' "$*"; }
note() { printf '  note     %s\n' "$*"; }
missing() {
  printf '  MISSING  %s\n' "$*"
  failed=1
}

echo "System"
. /etc/os-release 2>/dev/null && ok "${PRETTY_NAME:-unknown system}, $(nproc) cores"
if version=$(cargo --version 2>/dev/null | cut -d' ' -f2); then
  if [ "$(printf '%s\n' "$RUST_NEEDED" "$version" | sort -V | head -n1)" = "$RUST_NEEDED" ]; then
    ok "Rust $version"
  else
    missing "Rust $RUST_NEEDED, this is $version: run 'rustup update'"
  fi
else
  missing "Rust: install it with rustup (https://rustup.rs)"
fi
if command -v dpkg-query >/dev/null; then
  packages=$(missing_packages "${PACKAGES_BUILD[@]}" | paste -sd' ')
  if [ -z "$packages" ]; then ok "all system packages"; else missing "packages: apt-get install $packages"; fi
fi

echo "GStreamer"
if version=$(gst-launch-1.0 --version 2>/dev/null | sed -n 's/^GStreamer //p'); then
  ok "GStreamer $version"
else
  missing "gst-launch-1.0: apt-get install gstreamer1.0-tools"
fi
export GST_REGISTRY=${GST_REGISTRY:-$ROOT/target/registry.bin}
export GST_PLUGIN_PATH=$ROOT/target/release${GST_PLUGIN_PATH:+:$GST_PLUGIN_PATH}
mkdir -p "$ROOT/target"
for element in sfusink sfusrc sfuroomsrc sfuroommixer sfurecorder sfuhlssink sfusignaller simulcastenc ndilivesrc rtmpserversrc sfurtspserver peerwatch supervisor srtserver ndisrc fallbackswitch whepclientsrc isofmp4mux; do
  if gst-inspect-1.0 --exists --atleast-version=0.0 "$element"; then
    ok "element $element"
  else
    missing "element $element: run ./sfu build, or meson install"
  fi
done

echo "Encoders and decoders"
found=''
for encoder in nvh264enc qsvh264enc vah264enc vaapih264enc amfh264enc v4l2h264enc; do
  gst-inspect-1.0 --exists --atleast-version=0.0 "$encoder" && found+=" $encoder"
done
if [ -n "$found" ]; then ok "hardware:$found"; else note "no hardware encoder: software encodes, on the CPU"; fi
for encoder in x264enc:gstreamer1.0-plugins-ugly openh264enc:gstreamer1.0-plugins-bad \
  avdec_h264:gstreamer1.0-libav avenc_aac:gstreamer1.0-libav mpegtsmux:gstreamer1.0-plugins-bad vp8enc:gstreamer1.0-plugins-good opusenc:gstreamer1.0-plugins-base; do
  if gst-inspect-1.0 --exists --atleast-version=0.0 "${encoder%%:*}"; then
    ok "${encoder%%:*}"
  else
    missing "${encoder%%:*}: apt-get install ${encoder##*:}"
  fi
done

echo "NDI runtime"
runtime=''
for folder in "${NDI_RUNTIME_DIR_V6:-}" "${NDI_RUNTIME_DIR_V5:-}" /usr/local/lib /usr/lib "/usr/lib/$(uname -m)-linux-gnu"; do
  [ -n "$folder" ] && [ -e "$folder/libndi.so.6" ] && runtime=$folder/libndi.so.6 && break
done
[ -n "$runtime" ] || runtime=$(ldconfig -p 2>/dev/null | sed -n 's/.*libndi\.so\.6 .* => //p' | head -n1)
if [ -n "$runtime" ]; then
  ok "$runtime"
else
  note "libndi.so.6 is not found: only needed for NDI sources. Install the NDI runtime 6 (ndi.video, \"NDI SDK\" or"
  note "\"NDI Tools\"), or set NDI_RUNTIME_DIR_V6 to the folder that holds it"
fi

echo "Network"
buffer=1048576
limit=$(cat /proc/sys/net/core/wmem_max 2>/dev/null || echo 0)
if [ "$limit" -ge "$buffer" ] || [ "$(id -u)" -eq 0 ]; then
  ok "send buffers of $buffer octets can be had"
else
  note "net.core.wmem_max is $limit: on fast networks set it with 'sysctl -w net.core.wmem_max=$buffer'"
fi

# Rules that drop or refuse TCP in general, and don't name our ports, are seen; not what a cloud or a router does.
if command -v nft >/dev/null && [ "$(id -u)" -eq 0 ]; then
  if nft list ruleset 2>/dev/null | awk '/hook input/ && /policy drop/ { found = 1 } END { exit !found }'; then
    note "a firewall of this machine (nft list ruleset) drops what no rule accepts: accept TCP and UDP to the ports below"
  fi
fi

echo "HTTPS"
certificate=${CERTIFICATE:-} private_key=${PRIVATE_KEY:-}
if [ -z "$certificate$private_key" ]; then
  note "not asked for: CERTIFICATE=… PRIVATE_KEY=… ./sfu doctor looks at those files. Without HTTPS browsers on other machines"
  note "use no camera and no microphone"
# A device has no end.
elif [ ! -f "$certificate" ] || [ ! -r "$certificate" ] || [ ! -f "$private_key" ] || [ ! -r "$private_key" ]; then
  missing "CERTIFICATE and PRIVATE_KEY name two PEM files that this user may read"
elif ! command -v openssl >/dev/null; then
  note "openssl is not installed: the certificate was not looked at (apt-get install openssl)"
elif ! openssl x509 -noout -in "$certificate" 2>/dev/null; then
  missing "$certificate holds no certificate as PEM"
elif [ "$(openssl x509 -noout -pubkey -in "$certificate")" != "$(openssl pkey -pubout -in "$private_key" -passin pass: 2>/dev/null)" ]; then
  missing "the private key in $private_key is not that of the certificate in $certificate"
elif ! openssl x509 -noout -checkend 0 -in "$certificate" >/dev/null; then
  missing "the certificate in $certificate has expired"
elif ! openssl x509 -noout -checkend $((14 * 24 * 3600)) -in "$certificate" >/dev/null; then
  note "the certificate in $certificate ends within two weeks: is it renewed?"
else
  ok "certificate until $(openssl x509 -noout -enddate -in "$certificate" | cut -d= -f2)"
fi
# The server is asked with it by companions, webhooks and for keys.
if [ -s /etc/ssl/certs/ca-certificates.crt ] || [ -s /etc/pki/tls/certs/ca-bundle.crt ] || [ -s /etc/ssl/cert.pem ]; then
  ok "certificates of authorities"
else
  missing "certificates of authorities: apt-get install ca-certificates"
fi

echo "Ports"
check_port() {
  if ss -H -ln "--$1" "sport = :$2" 2>/dev/null | grep -q .; then
    missing "$1 port $2 is in use: choose another one with $3=…"
  else
    ok "$1 port $2 is free"
  fi
}
if command -v ss >/dev/null; then
  check_port tcp 8080 PORT
  for ((shard = 0; shard < $(nproc); shard++)); do
    check_port udp $((8189 + shard)) UDP_PORT
    # Who gets no UDP through comes by TCP; without it all else goes on.
    check_port tcp $((8189 + shard)) UDP_PORT
  done
  note "viewers on other machines need these ports open in the firewall, TCP as well for those whose networks block UDP"
else
  note "ss is not installed: ports were not looked at (apt-get install iproute2)"
fi
exit $failed
