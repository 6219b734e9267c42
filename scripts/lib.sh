# Shared by the scripts: what a machine has and what it gets.

# The packages that tests use for real instead of mocks. docker.io brings dockerd, containerd
# and runc; chromium draws the page of compare_strategies.
PACKAGES="docker.io iptables iproute2 nftables busybox-static curl chromium"

install_packages() {
    local missing=() package
    for package in $PACKAGES; do
        dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
            missing+=("$package")
    done
    if [ ${#missing[@]} -eq 0 ]; then
        echo "all there: $PACKAGES"
    elif [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        echo "not installed (no root, or no apt-get): ${missing[*]}"
    else
        echo "installing: ${missing[*]}"
        apt-get update -qq
        # The package must not start an engine of its own: tests start theirs.
        DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
            apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    fi
}

can_run_dockerd() {
    [ "$(id -u)" -eq 0 ] && command -v dockerd >/dev/null && command -v containerd >/dev/null
}
