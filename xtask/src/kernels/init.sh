#!/bin/busybox sh
# The first process of the guest. As /init it makes the host's root file system, under a layer of
# memory that takes what is written, the guest's own; started again there, it runs the job and
# powers off.
# Serial ports: 0 the kernel's console, 1 what the job prints, 2 results, one a line.
b=/bin/busybox

if [ "$1" = job ]; then
    # In raw mode a port passes on what is written to it unchanged.
    for port in 1 2; do $b stty -F /dev/ttyS$port raw -echo; done
    $b sh /run/job.sh </dev/null >/dev/ttyS1 2>&1
    echo "exit $?" >/dev/ttyS2
    # Without a sync, which would wait for the host's disk; nothing here is worth keeping.
    $b poweroff -n -f
fi

$b mkdir -p /proc /sys /dev /host /layer /new
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
for module in /modules/*; do
    $b insmod "$module" || echo "init: cannot load $module"
done
$b mount -t virtiofs host /host || $b poweroff -n -f
$b mount -t tmpfs -o size=90% layer /layer
$b mkdir /layer/upper /layer/work
$b mount -t overlay -o lowerdir=/host,upperdir=/layer/upper,workdir=/layer/work root /new || $b poweroff -n -f
for folder in proc sys dev; do $b mount --move /$folder /new/$folder; done
cd /new || $b poweroff -n -f
$b mkdir -p dev/pts dev/shm
$b mount -t devpts pts dev/pts
$b mount -t tmpfs shm dev/shm
$b mount -t tmpfs run run
$b mount -t cgroup2 cgroup sys/fs/cgroup
$b mount -t debugfs debug sys/kernel/debug
$b mount -t tracefs trace sys/kernel/tracing
$b mount -t bpf bpf sys/fs/bpf
$b ip link set lo up
$b hostname guest
$b cp /init /job.sh run/
exec $b switch_root /new /bin/busybox sh /run/init job
