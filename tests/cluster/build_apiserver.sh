#!/usr/bin/env bash
# Builds the API server of Kubernetes 1.20, which the stories of tests/scenarios/test_cluster_*.py run, from Debian 12's
# source package, and puts it into a cache with Debian's etcd: $API_SERVER_CACHE, else ai-sidecar/kube-apiserver in the
# user's cache. One rule: what the machine has installed stays as it is. Go, etcd and the sources are Debian's packages,
# downloaded by apt and unpacked in a temporary folder, so it needs no root. What is there is not built again.
set -Eeuo pipefail
exec 3>&2

cache=${API_SERVER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ai-sidecar/kube-apiserver}
step="preparing"

fail() { echo "No API server was built: $*" >&3; exit 1; }
trap 'fail "$step failed. The last lines of $log:
$(tail -n 15 "$log" 2>/dev/null)"' ERR

do_step() {
    step=$1
    shift
    printf '%s\n' "$step ..."
    "$@" >>"$log" 2>&1
}

is_built() { [ -x "$cache/kube-apiserver" ] && [ -x "$cache/etcd" ]; }

mkdir -p "$cache"
log=$cache/build.log
exec 9>"$cache/lock"
flock 9  # two at a time would do all of it twice
if is_built; then
    echo "The API server is in $cache."
    exit 0
fi
: >"$log"
for tool in apt-get dpkg-deb tar; do
    command -v "$tool" >/dev/null || fail "$tool is missing; it is built from the packages of Debian 12, and on Debian 12 only."
done
grep -q '^VERSION_CODENAME=bookworm$' /etc/os-release || fail "it is built from the packages of Debian 12, and this is another system."

work=$(mktemp -d "${TMPDIR:-/tmp}/kube-apiserver.XXXXXX")
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
cd "$work"

# Debian's own sources, with deb-src beside them, in a list of packages of our own.
mkdir -p lists/partial archives/partial debs
apt-get indextargets --format 'deb $(SITE) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 'Origin: Debian' | sort -u >found.list
[ -s found.list ] || fail "apt knows no package of Debian yet; run 'apt-get update' once."
{ cat found.list; sed 's/^deb /deb-src /' found.list; } >sources.list
apt_get() {
    apt-get -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work" -o APT::Sandbox::User="$(id -un)" \
        -o APT::Update::Error-Mode=any "$@"
}

unpack_packages() {
    (cd debs && apt_get download etcd-server golang-1.19-go golang-1.19-src golang-github-modern-go-reflect2-dev)
    for package in debs/*.deb; do dpkg-deb -x "$package" debian; done
}

unpack_sources() {
    apt_get source --download-only kubernetes
    mkdir -p "$kubernetes"
    tar -xf kubernetes_*1.20.*.orig.tar.* -C "$kubernetes" --strip-components=1
    # The vendored reflect2 crashes in Go 1.19 with the first call of a webhook; Debian's doesn't.
    rm -r "$kubernetes/vendor/github.com/modern-go/reflect2"
    cp -r debian/usr/share/gocode/src/github.com/modern-go/reflect2 "$kubernetes/vendor/github.com/modern-go/"
}

generate_openapi() {
    cd "$kubernetes"
    go build -o "$work/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
    local folders
    folders=$(grep -rl --include='*.go' -e '+k8s:openapi-gen=true' pkg staging/src/k8s.io |
        grep -v -e staging/src/k8s.io/code-generator/ -e staging/src/k8s.io/sample-apiserver/ |
        xargs -n1 dirname | sort -u | sed -e 's|^staging/src/|vendor/|' -e 's|^|k8s.io/kubernetes/|' | paste -sd, -)
    "$work/openapi-gen" --logtostderr --input-dirs "$folders" --output-package k8s.io/kubernetes/pkg/generated/openapi \
        --output-file-base zz_generated.openapi --go-header-file hack/boilerplate/boilerplate.generatego.txt \
        --report-filename "$work/violations" --output-base "$GOPATH/src"
}

build() {
    cd "$kubernetes"
    local flags="-s -w" package
    for package in component-base/version client-go/pkg/version; do
        package=k8s.io/kubernetes/vendor/k8s.io/$package
        flags+=" -X $package.gitVersion=v1.20.2 -X $package.gitMajor=1 -X $package.gitMinor=20"
    done
    go build -o "$work/kube-apiserver" -ldflags "$flags" ./cmd/kube-apiserver
}

keep() {
    "$work/kube-apiserver" --version
    "$work/debian/usr/bin/etcd" --version
    install "$work/debian/usr/bin/etcd" "$cache/etcd"
    install "$work/kube-apiserver" "$cache/kube-apiserver.new"
    mv "$cache/kube-apiserver.new" "$cache/kube-apiserver"
}

export GOROOT=$work/debian/usr/lib/go-1.19 GOPATH=$work/go GOCACHE=$work/go-cache GOTMPDIR=$work \
    GO111MODULE=off CGO_ENABLED=0 GOFLAGS=
export PATH=$GOROOT/bin:$PATH
kubernetes=$GOPATH/src/k8s.io/kubernetes

do_step "Reading Debian's lists of packages" apt_get update
do_step "Unpacking Go and etcd" unpack_packages
do_step "Unpacking the sources of Kubernetes" unpack_sources
do_step "Generating its OpenAPI definitions" generate_openapi
do_step "Building kube-apiserver (some minutes)" build
do_step "Trying it" keep
is_built
echo "The API server is in $cache."
