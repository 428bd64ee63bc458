#!/bin/sh
# An application that prints the signals it gets, with the name in $1, for as long as its file is there.
name=$1
trap 'echo "$name got USR1"' USR1
trap 'echo "$name got USR2"' USR2
if [ "$1" = master ]; then "$0" worker & fi
echo "$name is $$"
# A shell that waits for a command sees a signal at its end; in read, one that comes just before is not seen.
while [ -e "$0" ]; do sleep 0.02; done
