#!/usr/bin/env bash
# The functions of upstream's docker/setup.sh, each a line over `cfctl docker`, for scripts that call them.
#
#   source compat.sh                       defines cf_docker_create, cf_docker_list, cf_login_NAME and the others
#   compat.sh docker_create phone          calls one of them, as upstream's docker/cf did
#
# Needs bash and cfctl on PATH. docs/docker.md lists what differs.

cf_docker_list() { cfctl docker list; }

# Upstream's options: values of -A and -C are glued to them (-A/img, --android=/img).
cf_docker_create() {
    local name=cuttlefish option options=() push=() singleshot=
    while [ $# -gt 0 ]; do
        option=$1
        shift
        case $option in
            -h | --help) cfctl docker create --help && return 0 ;;
            -s | --singleshot) singleshot=yes ;;
            -x | --with_host_x) echo "cf_docker_create: $option does nothing: screens are shown over WebRTC" >&2 ;;
            -v | --vsock_guest_cid) ;; # CIDs never collide
            -m | --share_dir) options+=(--share "$1") && shift ;;
            --share_dir=*) options+=(--share "${option#*=}") ;;
            -m*) options+=(--share "${option#-m}") ;;
            -n | --n_cf_instances) options+=(--num-instances "$1") && shift ;;
            --n_cf_instances=*) options+=(--num-instances "${option#*=}") ;;
            -n*) options+=(--num-instances "${option#-n}") ;;
            -N | --network) options+=(--network "$1") && shift ;;
            --network=*) options+=(--network "${option#*=}") ;;
            -N*) options+=(--network "${option#-N}") ;;
            -A | --android) push+=(--images "${ANDROID_PRODUCT_OUT:?is not set, and $option names no directory}") ;;
            --android=*) push+=(--images "${option#*=}") ;;
            -A*) push+=(--images "${option#-A}") ;;
            -C | --cuttlefish) push+=(--host-package "$(cf_default_package)") || return ;;
            --cuttlefish=*) push+=(--host-package "${option#*=}") ;;
            -C*) push+=(--host-package "${option#-C}") ;;
            -*) echo "cf_docker_create: there is no option $option" >&2 && return 2 ;;
            *) name=$option && break ;;
        esac
    done
    cfctl docker create "$name" "${options[@]}" || return
    if [ ${#push[@]} -gt 0 ]; then
        cfctl docker push-images "$name" "${push[@]}" || return
    fi
    cf_define "$name"
    if [ -n "$singleshot" ]; then
        cfctl docker login "$name"
        cf_docker_rm "$name"
    fi
}

# Where a build of Android leaves it.
cf_default_package() {
    local soong=${ANDROID_HOST_OUT:-} directory
    for directory in ${ANDROID_SOONG_HOST_OUT:+"$ANDROID_SOONG_HOST_OUT"} "${soong/\/out\/host//out/soong/host}" "$soong"; do
        if [ -n "$directory" ] && [ -f "$directory/cvd-host_package.tar.gz" ]; then
            echo "$directory/cvd-host_package.tar.gz"
            return
        fi
    done
    echo "cf_docker_create: there is no cvd-host_package.tar.gz in ANDROID_SOONG_HOST_OUT or ANDROID_HOST_OUT" >&2
    return 1
}

cf_docker_rm() {
    local name
    for name in "${@:-cuttlefish}"; do
        cfctl docker rm "$name" || return
        unset -f "cf_login_$name" "cf_start_$name" "cf_stop_$name" "cf_gethome_$name" "cf_publish_$name" \
            "cf_unpublish_$name"
    done
}

cf_docker_rm_all() { cfctl docker rm-all; }

# Upstream's functions with a container's name in theirs. cfctl takes no name that a shell would take apart.
cf_define() {
    eval "cf_login_$1() { if [ \$# -gt 0 ]; then cfctl docker login $1 -- \"\$@\"; else cfctl docker login $1; fi; }"
    eval "cf_start_$1() { cfctl docker start $1 -- \"\$@\"; }"
    eval "cf_stop_$1() { cfctl docker stop $1; }"
    eval "cf_gethome_$1() { cfctl docker home $1; }"
    eval "cf_publish_$1() { cfctl docker publish $1; }"
    eval "cf_unpublish_$1() { cfctl docker unpublish $1; }"
}

cf_define_all() {
    local name
    while read -r name _; do
        if [ "$name" != NAME ] && [ "$name" != There ]; then
            cf_define "$name"
        fi
    done < <(cfctl docker list)
}

cf_define_all
if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    if [ $# -eq 0 ]; then
        cf_docker_list
    else
        "cf_$1" "${@:2}"
    fi
fi
