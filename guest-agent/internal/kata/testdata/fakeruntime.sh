#!/bin/sh
# An OCI runtime whose containers are sleeping processes of this machine: for
# tests that ask for many, and for none that look inside.
root= pidfile= command= id=
while [ $# -gt 0 ]; do
	case $1 in
	--root) root=$2 && shift ;;
	--pid-file) pidfile=$2 && shift ;;
	--log | --log-format | --bundle | --console-socket | --process | --resources | --cwd) shift ;;
	-*) ;;
	*) if [ -z "$command" ]; then command=$1; elif [ -z "$id" ]; then id=$1; fi ;;
	esac
	shift
done
mkdir -p "$root"
pids=$root/$id.pids
case $command in
create | exec)
	[ "$command" = create ] || [ -e "$pids" ] || exit 1
	# Without the pipes that a fuzzing worker leaves open: whoever watches it
	# would wait for their end.
	sleep 1000 3>&- 4>&- 5>&- &
	echo $! >>"$pids"
	printf %s $! >"$pidfile"
	;;
kill) while read -r pid; do kill -9 "$pid" 2>/dev/null; done <"$pids" ;;
delete)
	[ -e "$pids" ] || exit 1
	while read -r pid; do kill -9 "$pid" 2>/dev/null; done <"$pids"
	rm "$pids"
	;;
features) echo '{}' ;;
esac
exit 0
