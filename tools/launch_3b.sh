#!/usr/bin/env bash
# Starts a 3B recipe on a cluster. What each kind of stage runs on is the recipe's section [cluster].
set -euo pipefail

usage() {
    cat <<'END'
usage: tools/launch_3b.sh [--recipe FILE] [--nodes N] [--python PROGRAM] RUN_OPTION...

Starts configs/sbp_3b_200b.toml, stage by stage, on 8 hosts of 8 H200 that share this folder.

  --recipe FILE      another recipe
  --nodes N          hosts for training and for tuning the synthesizer; the parameters are sharded
                     within a host, and each host holds a copy
  --python PROGRAM   with megasbp installed (default: .venv/bin/python where there is one)
  RUN_OPTION         of `megasbp run`; --launcher torchrun where Slurm is not wanted

examples:
  tools/launch_3b.sh --dry-run                                  the scripts of all jobs, submitting none
  tools/launch_3b.sh 'cluster.options=["--account=me", "--partition=gpu", "--time=24:00:00"]'
  tools/launch_3b.sh --nodes 2 --launcher torchrun --rdzv-endpoint HOST:29400 --node-rank 0
                                                                on host 0; on host 1 --node-rank 1
END
}

home=$(cd "$(dirname "$0")/.." && pwd)
recipe=$home/configs/sbp_3b_200b.toml
launcher=slurm
python=python3
[ -x "$home/.venv/bin/python" ] && python=$home/.venv/bin/python
overrides=()
options=()
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help) usage && exit ;;
    --recipe | --nodes | --python | --launcher)
        [ $# -gt 1 ] || { echo "launch_3b.sh: $1 needs a value; see --help" >&2 && exit 2; }
        case $1 in
        --recipe) recipe=$2 ;;
        --python) python=$2 ;;
        --launcher) launcher=$2 ;;
        --nodes)
            for kind in training tuning; do
                overrides+=("cluster.$kind.nodes=$2" "cluster.$kind.parallel.replicate=$2")
            done
            ;;
        esac
        shift
        ;;
    *) options+=("$1") ;;
    esac
    shift
done
# The recipe and the program are named from where this was typed, the corpus and runs/ from the repository.
recipe=$(realpath "$recipe")
[ ! -e "$python" ] || python=$(realpath --no-symlinks "$python")
cd "$home"
# An empty array is unset to bash before 4.4.
exec "$python" -m megasbp run "$recipe" --launcher "$launcher" \
    ${overrides[@]+"${overrides[@]}"} ${options[@]+"${options[@]}"}
