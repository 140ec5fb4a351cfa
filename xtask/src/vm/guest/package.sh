# The Debian package as an administrator meets it: installed, started by systemd, upgraded and removed, all while clients connect.
. /run/vm/common.sh
exec 2>&1
trap 'code=$?; [ $code = 0 ] || { journalctl --no-pager --output cat --unit weir | tail -n 30; say failed "the task ended with $code"; }' EXIT
set -e

# What there is of Weir: files (all others are compared where this is installed in a Debian of its own), programs, maps, pins.
survey() {
    for place in /etc /etc/systemd /run /run/systemd /usr/bin /usr/lib/systemd/system /usr/share/doc /usr/share/man/man1 /var/lib; do
        find "$place" -maxdepth 1 -name '*weir*' ! -name 'weirt-*'
    done
    for kind in prog map link; do
        # Not all: what systemd itself keeps in the kernel comes and goes with its units.
        bpftool "$kind" list | grep -E 'weir|name (ingress|select_socket|socket_|restore_request|kernel_drop|accepted|SERVICES|BACKENDS|SETTINGS)' || true
    done
    find /sys/fs/bpf | sort
}

# Clients, each connection with one request, until `stop_clients`.
start_clients() {
    rm -f trial/stop
    (while [ ! -e trial/stop ]; do
        ip netns exec client curl --silent --max-time 10 --header 'Connection: close' --output /dev/null \
            --write-out '%{http_code} %{num_connects}\n' 'http://10.88.0.1/?[1-25]'
    done >trial/clients.log 2>&1) &
    clients=$!
}

stop_clients() {
    sleep 3
    : >trial/stop
    wait "$clients"
    all=$(wc -l <trial/clients.log)
    good=$(grep -c '^200 1$' trial/clients.log)
    say "$1" "$good of $all"
    sort trial/clients.log | uniq -c
}

is_served() {
    ip netns exec client curl --silent --fail --output /dev/null --max-time 5 http://10.88.0.1/
}

# How many connections Weir has placed so far.
placed() {
    weir status --json | grep -o '"chosen": *[0-9]*' | awk -F: '{ sum += $2 } END { print sum + 0 }'
}

mkdir -p trial /run/netns
mountpoint -q /sys/fs/bpf || mount -t bpf bpf /sys/fs/bpf
ip link set lo up
ip netns add client
ip link add toclient type veth peer name toserver netns client
ip address add 10.88.0.1/24 dev toclient
ip link set toclient up
ip -n client address add 10.88.0.2/24 dev toserver
ip -n client link set toserver up
cat >trial/nginx.conf <<'END'
worker_processes 4;
pid /root/trial/nginx.pid;
error_log /root/trial/nginx.log;
events {}
http {
    access_log off;
    client_body_temp_path /root/trial/client; proxy_temp_path /root/trial/proxy; fastcgi_temp_path /root/trial/fastcgi;
    uwsgi_temp_path /root/trial/uwsgi; scgi_temp_path /root/trial/scgi;
    server {
        listen 10.88.0.1:80 reuseport;
        location / { return 200 "served\n"; }
    }
}
END
nginx -e /root/trial/nginx.log -c /root/trial/nginx.conf
within 30 is_served
survey >trial/before

export DEBIAN_FRONTEND=noninteractive
# The database of all manual pages takes an emulated processor many minutes.
rm -f /var/lib/man-db/auto-update
# Images of containers forbid to start services; this is no container.
rm -f /usr/sbin/policy-rc.d
dpkg --install /run/vm/old.deb
sed -i 's/^#interfaces = .*/interfaces = ["toclient"]/' /etc/weir/weir.toml
say installed "$(dpkg-query --show --showformat '${Version}' weir)"
systemctl start weir
within 60 is_ready
first=$(systemctl show --property MainPID --value weir)
say started "$(weir status | sed -n 1p)"

start_clients
sleep 5
before=$(placed)
dpkg --install /run/vm/new.deb
within 60 is_ready
second=$(systemctl show --property MainPID --value weir)
[ "$second" != "$first" ] || say failed "the upgrade did not start the daemon anew"
stop_clients upgraded
after=$(placed)
say placed "$before $after"
say version "$(dpkg-query --show --showformat '${Version}' weir), service $(systemctl is-active weir)"

start_clients
sleep 3
dpkg --purge weir
stop_clients removed
survey >trial/after
left=$(diff trial/before trial/after | grep '^[<>]' | paste -s -d ' ' || true)
say left "${left:-nothing}"
