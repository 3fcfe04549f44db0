#!/bin/sh
# Stands in for `launchctl`: loads an agent once and refuses to load it again, as the real one does. What it was told, and
# whether the agent is loaded, is kept in the folder by whose path it was called.
cd "$(dirname "$0")" || exit 1
echo "$1" >>said
case $1 in
bootstrap) [ ! -e loaded ] && touch loaded ;;
bootout) rm loaded ;;
*) [ -e loaded ] ;;
esac
