# What the tasks of the machines have in common.
weir=/run/vm/weir

# A line for the machine that runs QEMU.
say() {
    echo "@ $*"
}

# Gives the card this machine's address of the two, and makes the other one its way to everywhere.
network() {
    ip link set lo up
    ip address add "10.99.0.$1/24" dev eth0
    ip link set eth0 up
    ip route add default via "10.99.0.$2"
}

# Runs a command until it succeeds, for so many seconds.
within() {
    seconds=$1
    shift
    end=$(($(date +%s) + seconds))
    until "$@"; do
        [ "$(date +%s)" -lt "$end" ] || return 1
        sleep 0.2
    done
}

is_ready() {
    curl --silent --fail --output /dev/null http://127.0.0.1:9464/readyz
}

# Starts the daemon on the card and waits for it; what it says goes to the console too.
start_weir() {
    RUST_LOG=info,lb_user::dataplane=debug "$weir" run --iface eth0 "$@" >weir.log 2>&1 &
    daemon=$!
    within 100 is_ready || {
        cat weir.log
        say failed "the daemon did not get ready"
        exit
    }
    cat weir.log
    say status "$("$weir" status --json)"
}
