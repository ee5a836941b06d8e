# Around the commands of a guide: see guides.rs.
mkdir .guide
exec 3>&1
# Each program in the background is a group of its own, so that all of it ends with the guide.
set -m
trap 'for job in $(jobs -p); do kill -- "-$job" 2>/dev/null || true; done' EXIT
in_background=0
at=none

# What the reader has before the eyes: what the last commands printed, and all that the background did.
printed() { cat ".guide/block-$at.out" ".guide/block-$at.err" .guide/background-*.out 2>/dev/null || true; }

# Waits until a command succeeds. Bounded: what does not come in 20 s does not come.
until_true() {
    local n
    for n in {1..400}; do
        if "$@"; then return 0; fi
        sleep 0.05
    done
    return 1
}

give_up() {
    echo "guide: $*" >&2
    printed >&2
    exit 1
}

# From here on, output is that of a block.
block() {
    at=$1
    exec >".guide/block-$1.out" 2> >(tee ".guide/block-$1.err" >&2)
}

# Starts a program and waits until it listens, as a reader does who looks at it.
background() {
    in_background=$((in_background + 1))
    local file=".guide/background-$in_background.out"
    eval "$1" >"$file" 2>&1 &
    until_true listens "$file" || give_up "'$1' did not begin to listen"
}
listens() { grep -qE 'is ready|^listening to|^following|answers in|^answering|^watching|^waiting' "$1"; }

# One line that the reader was told of.
expect() {
    local line
    line=$(printf '%s' "$1" | sed -e 's/[][\.*^$+?(){}|]/\\&/g' -e 's/…/.*/g' -e 's/  */ +/g')
    until_true shown "$line" || give_up "nobody printed: $1"
}
shown() { printed | grep -qE -- "$1"; }

finish() {
    exec >&3
    echo "guide followed"
}
