#!/bin/sh
# Makes the corpus of the fuzz target with the tools of each format. Then:
#   cargo +nightly fuzz run --fuzz-dir tests/fuzz probe -- -max_total_time=600
set -eu
cd "$(dirname "$0")"
PATH=$PATH:/usr/sbin:/sbin
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p corpus/probe "$work/tree"
echo content >"$work/tree/file"
cargo build -q --bin seed
seed=$(cargo metadata -q --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
seed=$(find "$seed" -name seed -type f -perm -1 | head -n 1)

# made NAME MEGABYTES COMMAND...: an image that the command formats, its path the last argument.
made() {
    name=$1 size=$2
    shift 2
    rm -f "$work/image"
    truncate -s "${size}M" "$work/image"
    "$@" "$work/image" >/dev/null 2>&1 || { echo "$name: not made"; return 0; }
    "$seed" "$work/image" "corpus/probe/$name"
}

for type in ext2 ext3 ext4; do made $type 16 mke2fs -q -F -t $type -L label; done
made ext4-plain 16 mke2fs -q -F -t ext4 -O ^metadata_csum,^64bit
made jbd 16 mke2fs -q -F -O journal_dev -b 4096
made xfs 320 mkfs.xfs -q -L label
made xfs-4 320 mkfs.xfs -q -m crc=0
made btrfs 128 mkfs.btrfs -q -L label
for bits in 12 16 32; do made fat-$bits $((bits * bits / 8)) mkfs.fat -F $bits -n LABEL; done
made exfat 32 mkfs.exfat -L label
made ntfs 16 mkntfs -q -F -Q -L label
for page in 4096 8192 16384 32768 65536; do made swap-$page 2 mkswap -q -p $page -L label; done
made f2fs 64 mkfs.f2fs -q -l label
made f2fs-summed 64 mkfs.f2fs -q -O extra_attr,sb_checksum
made reiserfs 40 mkfs.reiserfs -q -f -f -l label
made jfs 32 mkfs.jfs -q -L label
made nilfs2 256 mkfs.nilfs2 -q -L label
made udf-512 16 mkudffs -b 512 -l label
made udf-2048 16 mkudffs -b 2048 -l label
made bcache 16 make-bcache -B
made bcache-cache 128 make-bcache -C
echo key >"$work/key"
for type in luks1 luks2; do
    made $type 32 cryptsetup luksFormat -q --type $type --pbkdf pbkdf2 \
        --pbkdf-force-iterations 1000 --key-file "$work/key"
done
made iso9660 0 sh -c "genisoimage -quiet -J -V LABEL -o \$0 $work/tree"
made udf-bridge 0 sh -c "genisoimage -quiet -udf -V LABEL -o \$0 $work/tree"
made squashfs 0 sh -c "mksquashfs $work/tree \$0 -noappend -quiet"
made erofs 0 sh -c "mkfs.erofs \$0 $work/tree"
made gpt 64 sh -c 'printf "label: gpt\nsize=8M, name=a\nsize=8M, type=U\nsize=8M\n" | sfdisk -q $0'
made dos 64 sh -c \
    'printf "label: dos\nsize=8M\nsize=40M, type=5\nstart=20480, size=8M\nstart=40960, size=8M\n" |
    sfdisk -q $0'
made hybrid 64 sh -c 'printf "label: gpt\nsize=8M\nsize=8M\n" | sfdisk -q $0; sgdisk -h 1:2 $0'
