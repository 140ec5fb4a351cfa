# The machine that attacks: one client in calm, then a flood of SYNs from everywhere by hping3, and 200 clients in it.
. /run/vm/common.sh
connections=200

network 2 1

# What a connection has agreed on with the server.
options() {
    bash -c 'exec 3<>/dev/tcp/10.99.0.1/80 && ss -tineOH dst 10.99.0.1:80' 2>/dev/null
}

is_served() {
    curl --silent --fail --output /dev/null --max-time 5 http://10.99.0.1/
}

# Until Weir is ready there.
read -r _
within 30 is_served || say failed "the server did not answer in calm"
say calm "$(options)"

timeout --signal=INT 240 hping3 -q -S -p 80 -i u500 --rand-source 10.99.0.1 >hping3.log 2>&1 &
flood=$!
sleep 4
say flood "$(options)"
# Each in a connection of its own; none is tried again.
curl --silent --max-time 10 --header 'Connection: close' --output /dev/null \
    --write-out '%{http_code} %{num_connects} %{time_connect}\n' "http://10.99.0.1/?[1-$connections]" >curl.log
kill -INT "$flood"
wait "$flood"
# It counts when it ends, a moment after the one who ends it.
within 5 grep -q "packets transmitted" hping3.log
cat hping3.log
sort curl.log | tail -n 3
say served "$(grep -c '^200 1 ' curl.log) of $connections, slowest $(sort -k3 -n curl.log | tail -n 1 | cut -d' ' -f3)"
sent=$(grep -o '[0-9]* packets transmitted' hping3.log | cut -d' ' -f1)
say sent "${sent:-uncounted}"
