#!/usr/bin/env bash
# Runs a command with a private Docker Engine and takes everything down after it.
#
#   scripts/with-dockerd.sh cargo test -p swarm-runtime docker
#
# The command finds the engine in DOCKER_HOST and SWARM_TEST_DOCKER (unix://…). Local images:
# busybox:latest, busybox:1 and busybox:2, made from the static busybox of this machine.
#
# The engine and the command live in network, mount and process namespaces of their own: bridges,
# firewall rules and published ports clash with nothing on this machine, several runs may go on
# side by side, and the kernel ends what is left when the script does, however it does. The price
# is that the command has a loopback interface only: fetch dependencies before.
#
# SWARM_DOCKERD_NETWORK=host keeps the machine's network (for tests that need the world outside).
# SWARM_DOCKERD_LOG=FILE keeps the engine's log there.
set -euo pipefail

[ $# -gt 0 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 2; }
[ "$(id -u)" = 0 ] || { echo "with-dockerd: an engine needs root; run it with sudo" >&2; exit 1; }

need() { # need PROGRAM PACKAGE
    command -v "$1" >/dev/null || install "$1" "$2"
}
install() {
    command -v apt-get >/dev/null || { echo "with-dockerd: $1 is missing, install it" >&2; exit 1; }
    DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "$2" >&2 \
        || { apt-get update -q >&2 && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "$2" >&2; }
}

if [ "${SWARM_DOCKERD_INNER:-}" != 1 ]; then
    need dockerd docker.io
    command -v docker >/dev/null || need docker docker-cli
    need iptables iptables
    need ip iproute2
    busybox=$(command -v busybox || true)
    if [ -z "$busybox" ] || ! { LC_ALL=C ldd "$busybox" 2>&1 || true; } | grep -q 'not a dynamic'; then
        install "a static busybox" busybox-static
    fi
    net=(--net)
    [ "${SWARM_DOCKERD_NETWORK:-}" = host ] && net=()
    export SWARM_DOCKERD_INNER=1
    exec unshare "${net[@]}" --mount --pid --fork --kill-child --mount-proc -- "$0" "$@"
fi
unset SWARM_DOCKERD_INNER

dir=$(mktemp -d "${TMPDIR:-/tmp}/swarm-dockerd.XXXXXX")
log=${SWARM_DOCKERD_LOG:-$dir/dockerd.log}
export DOCKER_HOST=unix://$dir/docker.sock SWARM_TEST_DOCKER=unix://$dir/docker.sock
daemon=

stop() {
    trap - EXIT
    if [ -n "$daemon" ]; then
        docker ps -q 2>/dev/null | xargs -r docker rm -f >/dev/null 2>&1 || true
        kill "$daemon" 2>/dev/null || true
        wait "$daemon" 2>/dev/null || true
    fi
    # Bind mounts below the directory (a driver's namespaces, a test's tmpfs) go with the mount
    # namespace; only what is on disk is removed here.
    awk -v dir="$dir/" 'index($5, dir) == 1 { print $5 }' /proc/self/mountinfo | sort -r \
        | xargs -r umount -l 2>/dev/null || true
    rm -rf --one-file-system "$dir"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if [ "${SWARM_DOCKERD_NETWORK:-}" = host ]; then
    # A bridge and ranges of our own: docker0 may belong to another engine.
    block=$((RANDOM % 200 + 20))
    ip link add "swtest$block" type bridge
    ip addr add "10.$block.255.1/24" dev "swtest$block"
    ip link set "swtest$block" up
    network=(--bridge "swtest$block" --default-address-pool "base=10.$block.0.0/17,size=24")
else
    ip link set lo up
    export CARGO_NET_OFFLINE=true
    network=(--bip 172.31.255.1/24 --default-address-pool base=172.31.0.0/17,size=24)
fi

dockerd --host "$DOCKER_HOST" --data-root "$dir/data" --exec-root "$dir/exec" \
    --pidfile "$dir/dockerd.pid" "${network[@]}" >"$log" 2>&1 &
daemon=$!
for _ in $(seq 150); do
    docker version >/dev/null 2>&1 && break
    kill -0 "$daemon" 2>/dev/null || break
    sleep 0.2
done
docker version >/dev/null 2>&1 || { echo "with-dockerd: the engine did not start:" >&2; tail -40 "$log" >&2; exit 1; }

# An image from the static busybox: no registry is needed.
root=$dir/root
mkdir -p "$root"/{bin,etc,tmp,root,run,var/www}
cp "$(command -v busybox)" "$root/bin/busybox"
for tool in $("$root/bin/busybox" --list); do ln -s busybox "$root/bin/$tool" 2>/dev/null || true; done
printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$root/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
chmod 1777 "$root/tmp"
for tag in latest 1 2; do
    tar -C "$root" -c . | docker import --change 'CMD ["sh"]' --change "LABEL test.image=$tag" - "busybox:$tag" >/dev/null
done
rm -rf "$root"

set +e
"$@"
status=$?
set -e
exit $status
