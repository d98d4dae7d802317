#!/usr/bin/env bash
# Builds sdist and wheel, installs the wheel in a new environment outside the tree and runs it
# there, so that a file missing from the package shows. Offline: dependencies come from PYTHON's
# environment, by a .pth file. With DIST, what was built is copied there when all is well.
# Usage: tests/check_wheel.sh PYTHON [DIST]
set -euo pipefail

python=$PWD/$1
kept=${2:-}
tree=$PWD
most=30000000 # bytes of the wheel
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset PYTHONPATH

"$python" -m build --no-isolation --outdir "$work/dist" . >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
size=$(wc -c <"$(echo "$work"/dist/*.whl)")
((size <= most)) || { echo "error: the wheel has $size bytes, more than $most"; exit 1; }
"$python" -m venv --without-pip "$work/venv"
"$python" -m pip --python "$work/venv/bin/python" install -qq --disable-pip-version-check \
  --no-deps --no-index "$work"/dist/*.whl
site=$("$work/venv/bin/python" -c 'import site; print(site.getsitepackages()[0])')
"$python" -c 'import site; print(site.getsitepackages()[0])' >"$site/dependencies.pth"

cp "$tree/examples/shapes.mp4" "$work/clip.mp4"
cd "$work"
home=$(venv/bin/python -c 'import malmm_cli; print(malmm_cli.__file__)')
[[ $home == "$site"/* ]] || { echo "error: malmm_cli came from $home, not from the wheel"; exit 1; }
[[ -s venv/share/man/man1/malmm.1 ]] || { echo "error: the man page is missing"; exit 1; }
venv/bin/malmm --version
text=$(venv/bin/malmm caption clip.mp4 --model tiny)
[[ -n $text ]] || { echo "error: the installed malmm printed no caption"; exit 1; }
echo "the wheel ($((size)) bytes), installed outside the tree, says: $text"
[[ -z $kept ]] || { mkdir -p "$tree/$kept" && cp dist/* "$tree/$kept/"; }
