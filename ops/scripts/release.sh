#!/usr/bin/env bash
# Makes what is given to others, in target/dist: an archive for any Linux with this libc, a Debian package,
# and SHA256SUMS.
#   release.sh [--debug] [--no-deb]
#
# The archive is a prefix: unpacked into /usr/local it is installed (docs/installing.md). Both hold the
# four programs, completions for bash, zsh and fish, manual pages, systemd units, an example of settings and
# the licence. Made twice of one commit by one toolchain they are the same, byte for byte.
# --debug takes unoptimised programs: for trying this script. --no-deb leaves the package out.
# The package needs cargo-deb, which is installed into target/tools where it is missing, and dpkg-dev.
set -euo pipefail
cd "$(dirname "$0")/../.."

profile=release deb=yes
for word; do
    case $word in
    --debug) profile=debug ;;
    --no-deb) deb='' ;;
    -h | --help)
        sed -n '2,12s/^# \{0,1\}//p' "$0"
        exit
        ;;
    *)
        echo "release.sh: $word is not understood; see --help" >&2
        exit 2
        ;;
    esac
done

CARGO_DEB=3.8.0
target=${CARGO_TARGET_DIR:-target}
programs=(orchestrator orchestrator-api orchestrator-scheduler orchestrator-worker)
flags=(--locked -p orchestrator-cli -p orchestrator-api -p orchestrator-scheduler -p orchestrator-worker)
packing=()
if [ "$profile" = debug ]; then packing+=(--fast); else flags+=(--release); fi
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || date +%s)
export SOURCE_DATE_EPOCH SQLX_OFFLINE=true

cargo build "${flags[@]}"
built=$target/$profile
version=$("$built/orchestrator" --version | cut -d' ' -f2)
host=$(rustc -vV | sed -n 's/^host: //p')
dist=$target/dist

# What goes into both, as it will lie under a prefix; cargo-deb looks for it here, whatever was built.
stage=$target/release/dist
rm -rf "$dist" "$stage"
mkdir -p "$dist"
units=$stage/lib/systemd/system doc=$stage/share/doc/orchestrator
bash=$stage/share/bash-completion/completions zsh=$stage/share/zsh/site-functions
fish=$stage/share/fish/vendor_completions.d
mkdir -p "$stage/bin" "$stage/share/man" "$units" "$doc" "$bash" "$zsh" "$fish"
for program in "${programs[@]}"; do
    cp "$built/$program" "$stage/bin/"
done
strip "$stage"/bin/*
cli=$stage/bin/orchestrator
"$cli" completions bash >"$bash/orchestrator"
"$cli" completions zsh >"$zsh/_orchestrator"
"$cli" completions fish >"$fish/orchestrator.fish"
"$cli" man "$stage/share/man"
gzip -9n "$stage"/share/man/man?/*
cp ops/systemd/*.service "$units/"
cp README.md CHANGELOG.md LICENSE docs/installing.md "$doc/"
cp .env.example "$doc/settings.env"
cp ops/systemd/orchestrator.env "$doc/orchestrator.env"
chmod -R u=rwX,go=rX "$stage"

name=orchestrator-$version-$host
tar --create --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" \
    --transform "s,^\.,$name," --directory "$stage" . | gzip -9n >"$dist/$name.tar.gz"

if [ -n "$deb" ] && ! command -v dpkg-shlibdeps >/dev/null 2>&1; then
    echo "no Debian package: dpkg-shlibdeps is not here (apt-get install dpkg-dev)" >&2
    deb=''
fi
if [ -n "$deb" ]; then
    PATH=$target/tools/bin:$PATH
    command -v cargo-deb >/dev/null 2>&1 ||
        cargo install --locked --root "$target/tools" --version "$CARGO_DEB" cargo-deb ||
        {
            echo "release.sh: cargo-deb cannot be installed; install it yourself, or say --no-deb" >&2
            exit 1
        }
    cargo deb --no-build --no-strip --package orchestrator-cli --output "$dist/" \
        "${packing[@]}"
fi

(
    cd "$dist"
    shopt -s nullglob
    sha256sum -- *.tar.gz *.deb >SHA256SUMS
)
echo "in $dist:"
ls -l "$dist"
