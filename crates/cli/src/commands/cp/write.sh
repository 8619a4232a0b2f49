# Writes standard input to the file $1, or to the file $2 of the directory $1, whole or not at all.
# The input ends with the mark $3, which is random. Without it the end is missing.
# The part stays in a directory of its own until it is whole: other users of the guest can put no
# link and no pipe in its way, not even if the directory above is theirs.

fail() {
	echo "$1" >&2
	exit 1
}

# Only regular files are replaced: the name of a device or a pipe belongs to what is behind it.
check() {
	[ ! -d "$to" ] || fail "$to is a directory"
	[ ! -e "$to" ] || [ -f "$to" ] || fail "$to is not a regular file, and is left as it is"
}

clean() {
	# The agent repeats its signal, and rm would end by it.
	trap '' HUP INT TERM
	[ -z "$inside" ] || rm -f f a b
	cd / && rmdir "$part" 2>/dev/null
}

to=$1 mark=$3 inside=
[ ! -d "$to" ] || to=${to%/}/$2
[ -d "${to%/*}/" ] || fail "${to%/*} is not a directory"
check
part=${to%/*}/.plimsoll-cp.$mark
trap 'exit 1' HUP INT TERM
trap clean EXIT
(umask 077 && mkdir -m 700 "$part") && cd -P "$part" || exit 1
# The owner of the directory above can put another directory in this one's place.
set -- $(ls -ldn .)
case "$1 $3" in
"drwx--"[-S]"---"*" $(id -u)") inside=1 ;;
*) fail "another program has replaced $part" ;;
esac

cat >f || exit 1
# Shells warn of the zero bytes that they leave out.
{ end=$(tail -c ${#mark} f); } 2>/dev/null
[ "$end" = "$mark" ] || fail "the copy ended before the file was whole"
length=$(($(wc -c <f) - ${#mark}))
dd if=/dev/null of=f bs=1 seek=$length 2>/dev/null || fail "$part/f cannot be shortened"
# Without it a crash of the guest could leave an empty file of the final name. Small systems have
# no such program.
sync f || [ $? -eq 127 ] || exit 1
# With -T mv never moves into a directory, whatever has become of the name. Not every mv knows it.
: >a
only=-T
mv -T a b 2>/dev/null || only=
check
mv -f $only f "$to" || exit 1
exit 0
