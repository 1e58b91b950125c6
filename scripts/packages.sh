# SPDX-License-Identifier: MPL-2.0
# shellcheck shell=bash
# What must be installed, and how. Sourced by ./sfu and the scripts beside this one.

RUST_NEEDED=1.92
export RUST_NEEDED

PACKAGES_RUN=(
  gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good
  gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly gstreamer1.0-libav gstreamer1.0-x gstreamer1.0-alsa glib-networking ca-certificates
  libavahi-client3 libgstrtspserver-1.0-0
)
PACKAGES_BUILD=(
  "${PACKAGES_RUN[@]}" build-essential pkg-config libssl-dev
  libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev libgstreamer-plugins-bad1.0-dev libgstrtspserver-1.0-dev
)
# What of them the crates ask pkg-config for.
MODULES_BUILD=(
  'gstreamer-1.0 >= 1.22' gstreamer-{app,audio,base,check,net,rtp,rtsp,sdp,video,webrtc}-1.0
  gstreamer-rtsp-server-1.0 openssl
)
PACKAGES_TEST=(
  "${PACKAGES_BUILD[@]}" gstreamer1.0-nice caddy chromium curl firefox-esr ffmpeg srt-tools
  coturn gir1.2-gst-plugins-bad-1.0 gir1.2-gst-rtsp-server-1.0 python3-gi python3-venv fonts-dejavu-core iproute2 nftables libavahi-common3
  libnginx-mod-rtmp meson nginx ninja-build openssl pebble procps prometheus python3 python3-pip shellcheck systemd
  util-linux vlc-bin vlc-plugin-base
)
PACKAGES_BENCH=(
  "${PACKAGES_BUILD[@]}" gstreamer1.0-nice iproute2 janus procps python3 util-linux
)

die() {
  echo "sfu: $*" >&2
  exit 1
}

# Prints which of the given packages are not installed.
missing_packages() {
  local package
  for package in "$@"; do
    if [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" != installed ]; then
      echo "$package"
    fi
  done
}

# Installs what is missing for running, building or testing.
install_packages() {
  local wanted missing sudo=()
  case $1 in
    run) wanted=("${PACKAGES_RUN[@]}") ;;
    build) wanted=("${PACKAGES_BUILD[@]}") ;;
    bench) wanted=("${PACKAGES_BENCH[@]}") ;;
    obs)
      wanted=("${PACKAGES_BUILD[@]}" chromium curl ffmpeg obs-studio python3 xvfb)
      command -v node >/dev/null || wanted+=(nodejs npm)
      ;;
    debian13) wanted=(debootstrap git util-linux) ;;
    test)
      wanted=("${PACKAGES_TEST[@]}")
      command -v node >/dev/null || wanted+=(nodejs npm)
      ;;
    *) die "packages: say run, build, test, bench, obs or debian13" ;;
  esac
  if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
    echo "This is no Debian or Ubuntu: make sure that your system has what these packages hold: ${wanted[*]}"
    return
  fi
  mapfile -t missing < <(missing_packages "${wanted[@]}")
  [ ${#missing[@]} -gt 0 ] || return 0
  echo "Installing with apt-get: ${missing[*]}"
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || die "run this as root once: apt-get install ${missing[*]}"
    sudo=(sudo)
  fi
  apt_update "${sudo[@]}"
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get -o "DPkg::Lock::Timeout=$APT_PATIENCE" install -y -qq --no-install-recommends "${missing[@]}" ||
    die "apt-get could not install them: see above"
}

# New machines update themselves first, and hold apt's locks meanwhile: they are waited for so long, in seconds.
APT_PATIENCE=${APT_PATIENCE:-600}

# Brings the lists of packages up to date. The option waits for dpkg's lock alone, not for that of the lists.
apt_update() {
  local end=$((SECONDS + APT_PATIENCE)) said told=false
  until said=$("$@" env LC_ALL=C apt-get -o "DPkg::Lock::Timeout=$APT_PATIENCE" update -qq 2>&1); do
    [[ $said == *'Could not get lock'* ]] || die "apt-get update failed: $said"
    [ "$SECONDS" -lt "$end" ] || die "another program has used apt for $APT_PATIENCE s: $said"
    $told || echo "Another program uses apt, such as the system's own updates; waiting for it"
    told=true
    sleep 2
  done
}

# Ends with what to do where something that the build needs is missing, before a crate ends with pages about it.
check_build() {
  local tool module missing=()
  for tool in cc pkg-config; do
    command -v "$tool" >/dev/null || missing+=("$tool")
  done
  if command -v pkg-config >/dev/null; then
    for module in "${MODULES_BUILD[@]}"; do
      pkg-config --exists "$module" || missing+=("${module%% *}")
    done
  fi
  [ ${#missing[@]} -eq 0 ] ||
    die "the build needs ${missing[*]}: run './sfu packages build', which installs what is missing"
}
