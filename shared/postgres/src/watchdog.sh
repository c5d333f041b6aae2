# Runs one PostgreSQL server, and ends it when its owner ends, even by SIGKILL.
#
# Arguments: log file, socket directory, directory to remove at the end (or nothing), the signal
# that stops the server when the owner is gone; then the server's command.
# stdin   a pipe from the owner: signal names to pass on; its end is the owner's end.
# stdout  a pipe to the owner: one line when the server has ended.
# stderr  the server's lock, held by being open.

# A service manager or a terminal that signals everybody must not take the guard away first.
# (The server sets its own handlers.)
trap '' HUP INT TERM PIPE
log=$1 sockets=$2 discard=$3 stop=$4
shift 4
exec 3<&0 4>&2 </dev/null 2>>"$log"

"$@" 3<&- 4>&- >&2 &
server=$!

(
    while read -r signal <&3; do kill -"$signal" "$server"; done
    # The owner is gone. A server that is only just starting has no handler yet, and ignores what we
    # ignore: it is told until it has ended, which ends this listener too.
    while kill -"$stop" "$server"; do sleep 0.2 3<&- 4>&-; done
) >&2 &
listener=$!

wait "$server"
status=$?
# The server's number may soon be another process's: nobody may signal it any more.
kill -KILL "$listener"
wait "$listener"
echo "exited $status"

# The owner may want to start a server on the same directories again: then it says so, and these
# stay. Otherwise its end is the end of them too.
while read -r word <&3; do
    [ "$word" = leave ] && exit 0
done
rm -rf -- "$sockets"
[ -z "$discard" ] || rm -rf -- "$discard"
