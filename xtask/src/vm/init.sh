#!/bin/sh
# First process of the virtual machine. Mounts the host's root, which is read-only, under an overlay
# of its own, so that programs just built run here as they are, and goes on there with the script.
set -e
trap 'echo "init failed"; sleep 1; echo b > /proc/sysrq-trigger' EXIT

/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
# In the order of their dependencies.
while read -r module; do
    insmod "/modules/$module"
done < /modules/order

mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro host /host
mount -t tmpfs -o size=75% tmpfs /changes
mkdir /changes/upper /changes/work
mount -t overlay -o lowerdir=/host,upperdir=/changes/upper,workdir=/changes/work overlay /root
for directory in proc sys dev; do
    mount --move /$directory /root/$directory
done
mount -t tmpfs tmpfs /root/run
mount -t bpf bpf /root/sys/fs/bpf
mount -t cgroup2 cgroup2 /root/sys/fs/cgroup
mkdir -p /root/dev/pts /root/dev/shm /root/run/netns
mount -t devpts devpts /root/dev/pts
mount -t tmpfs tmpfs /root/dev/shm

# The kernel loads further modules by itself.
release=$(uname -r)
mkdir -p "/root/lib/modules/$release"
mount --bind "/root$(cat /modules/directory)" "/root/lib/modules/$release"

# Results leave by the other serial ports, byte by byte.
stty raw -echo < /root/dev/ttyS1
stty raw -echo < /root/dev/ttyS2
cp /script /root/run/script
exec switch_root /root /bin/sh /run/script
