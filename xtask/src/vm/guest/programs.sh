# Does this kernel take every program, are they pinned and gone again, and do the packet tests pass?
. /run/vm/common.sh

network 1 2
start_weir
say loaded "$(awk '/loaded in [0-9]* ms/ { sum += $(NF - 1) } END { print sum }' weir.log)"
"$weir" doctor --iface eth0
say pinned "$(find /sys/fs/bpf/weir/default/programs /sys/fs/bpf/weir/default/links -type f | wc -l)"
"$weir" stop || say failed "weir stop ended with $?"
kill "$daemon" 2>/dev/null
left=$(find /sys/fs/bpf/weir -mindepth 1)
[ -z "$left" ] || say failed "weir stop left $left"
say stopped

# On an emulated processor, every row and every sequence: not the rows at each length and the random frames, which are a hundred thousand
# runs and take it many minutes, and not what needs a hundred segments within 10 ms.
if [ "$EMULATED" = true ]; then
    slow="--skip cut_at_every_length --skip in_two_buffers --skip random_ --skip a_flood_of_strays_shows"
fi
# Nor what compares files of the checkout, which may lie where this machine has none (/tmp).
# shellcheck disable=SC2086 # these are words
WEIR_BIN=$weir /run/vm/kernel dataplane:: --skip the_seeds_of_the_fuzzer $slow >packets.log 2>&1
code=$?
cat packets.log
say packets "$code $(grep '^test result' packets.log)"
