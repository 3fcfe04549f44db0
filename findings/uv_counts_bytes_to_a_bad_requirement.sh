#!/bin/sh
# uv 0.13.9: where a requirements file is wrong, `uv pip compile` counts bytes from its beginning for one kind of error,
# and lines and columns for another. pip 25.3 names the line for both.
#
# Expected: the line, as for an unknown option, and as pip says it.
# Observed: a line that is no requirement is "at position 21" in a file of three lines, which is its offset in bytes, and
#           not in characters, and the message that follows counts columns within the line. The same goes for an included
#           file that is not there. An unknown option is at "options.txt:2:1".
# Output seen: see `expected` below.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9 pip==25.3
printf '# größe äöü\nsix\nnot a line\n' > words.txt
printf 'six\n-r none.txt\n' > includes.txt
printf 'six\n--frobnicate\n' > options.txt
expected="uv words.txt: at position 21
uv includes.txt: at position 4
uv options.txt: options.txt:2:1
pip words.txt: line 3 of words.txt
characters before the third line of words.txt: 16"
seen=$(
  for file in words includes options; do
    said=$(venv/bin/uv pip compile --offline --no-index "$file.txt" 2>&1 || true)
    echo "uv $file.txt: $(echo "$said" | grep -oE "at position [0-9]+|$file.txt:[0-9]+:[0-9]+" | head -n 1)"
  done
  said=$(venv/bin/python -m pip install --no-index -r words.txt 2>&1 || true)
  echo "pip words.txt: $(echo "$said" | grep -oE "line [0-9]+ of words.txt" | head -n 1)"
  echo "characters before the third line of words.txt: $(venv/bin/python -c "print(open('words.txt', encoding='utf-8').read().index('not'))")"
)
echo "$seen"
[ "$seen" = "$expected" ] || { echo "changed" >&2; exit 1; }
