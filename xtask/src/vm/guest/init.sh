#!/bin/sh
# The first program of a machine: loads what its root file system needs, and goes on there, in the task that the command line names.
busybox mount -t devtmpfs devices /dev
busybox mount -t proc processes /proc
busybox mount -t sysfs kernel /sys
for module in virtio_pci 9pnet_virtio 9p overlay virtio_net; do
    modprobe $module || echo "@ failed cannot load the module $module"
done

# The root file system of the machine that runs QEMU, which this one only reads; what is written goes to memory.
busybox mount -t tmpfs memory /rw
busybox mkdir /rw/files /rw/work
busybox mount -t 9p -o trans=virtio,version=9p2000.L,cache=loose,msize=512000,ro host /ro
busybox mount -t overlay -o lowerdir=/ro,upperdir=/rw/files,workdir=/rw/work root /host

# The kernel asks for modules by this program, when somebody uses what they bring.
busybox mkdir -p /host/lib/modules
busybox cp -a /lib/modules/. /host/lib/modules/
busybox cp /bin/busybox /host/sbin/modprobe

for directory in dev proc sys; do
    busybox mount --move /$directory /host/$directory
done
busybox mount -t tmpfs memory /host/run
busybox mount -t tmpfs memory /host/tmp
busybox mkdir -p /host/run/vm
busybox mount -t 9p -o trans=virtio,version=9p2000.L,cache=loose,msize=512000,ro shared /host/run/vm
busybox mount -t bpf bpf /host/sys/fs/bpf

# A task with a unit is run by systemd, which the other machine has too.
if [ -f "/host/run/vm/$TASK.service" ]; then
    busybox mkdir -p /host/run/systemd/system
    busybox cp "/host/run/vm/$TASK.service" /host/run/systemd/system/
    exec busybox switch_root /host /lib/systemd/systemd --unit="$TASK.service" --show-status=yes --log-target=console
fi
exec busybox switch_root /host /bin/sh -c '
    cd /tmp
    export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp
    sh "/run/vm/$TASK.sh" || echo "@ failed the task $TASK ended with $?"
    echo o >/proc/sysrq-trigger
    sleep 60
'
