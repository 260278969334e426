# shellcheck shell=bash
# Shared by the scripts: messages, processes that end with the script, private PostgreSQL clusters.
set -euo pipefail

# At a terminal, take the foreground from make. Then Ctrl-C reaches only this script, which ends its
# processes in order and chooses the exit code; make would report an interrupt. bash does this when
# it is started with -m, and gives the terminal back at the end.
read -r _ _ _ _ group _ _ foreground _ </proc/$$/stat
if [[ $group == "$foreground" && $- != *m* ]]; then
    exec bash -m "$0" "$@"
fi
# Without a terminal, too, each background process gets a process group, to be ended with its
# children.
set -m
# Ignore Ctrl-Z: the script could not be resumed, because the shell waits for make, which is not
# stopped.
trap '' TSTP

cd "$(dirname "${BASH_SOURCE[0]}")/.."
clusters=$PWD/target/postgres
# Where tests create theirs if there is enough memory.
clusters_in_memory=/dev/shm/clerk2pg-tests-$(id -u)
exec {never}<> <(:)
started=()
server_pid=
remove=()

say() { printf '%s\n' "$*"; }

# die MESSAGE [HINT]
die() {
    printf 'error: %s\n' "$1" >&2
    [[ $# == 1 ]] || printf 'hint: %s\n' "$2" >&2
    exit 1
}

# Prints the version of clerk2pg.
version() { sed -n '/^\[workspace\.package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' Cargo.toml; }

# Prints the time of the commit in Unix seconds, or the time now if this is no checkout. A container's
# user may not be the owner of the checkout, which git refuses otherwise.
commit_time() { git -c safe.directory="$PWD" log -1 --format=%ct 2>/dev/null || date +%s; }

# spawn PROGRAM ARGUMENT…: starts a program in the background; $! is its id. It ends with this
# script, even if the script is killed.
spawn() {
    setpriv --pdeathsig TERM "$@" </dev/null &
    started+=($!)
}

# Waits for a tenth of a second. The program sleep would be in the foreground, and would get Ctrl-C.
tick() { read -rt 0.1 -u "$never" || true; }

# gone PID SECONDS: waits for a process to end. Fails if it still runs after this time.
gone() {
    local pid=$1 tenths=$(($2 * 10)) state
    # An ended process is a zombie while bash is in a trap.
    while read -r state 2>/dev/null </proc/"$pid"/stat && [[ $state != *') Z '* ]]; do
        ((tenths-- > 0)) || return 1
        tick
    done
}

# Ends all processes, the last one first, and PostgreSQL at the end.
finish() {
    trap '' INT TERM HUP PIPE
    # bash would print each job that a signal ended.
    exec 2>/dev/null
    local i pid
    for ((i = ${#started[@]} - 1; i >= 0; i--)); do
        pid=${started[i]}
        # Compilers and tests are in the process group of cargo.
        kill -TERM -- "-$pid" 2>/dev/null || continue
        gone "$pid" 10 || kill -KILL -- "-$pid" 2>/dev/null || true
    done
    if [[ -n $server_pid ]] && kill -INT "$server_pid" 2>/dev/null; then
        gone "$server_pid" 20 || kill -QUIT "$server_pid" 2>/dev/null || true
    fi
    rm -rf "${remove[@]}"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP PIPE

# Sets pg_bin to the folder of the server programs. Fails if there are none.
find_postgres() {
    local candidates
    mapfile -t candidates < <(
        printf '%s\n' "${CLERK2PG_PG_BIN:-}"
        dirname "$(command -v postgres || echo /none/postgres)"
        printf '%s\n' /usr/lib/postgresql/*/bin | sort --reverse --version-sort
    )
    for pg_bin in "${candidates[@]}"; do
        if [[ -x $pg_bin/postgres && -x $pg_bin/initdb && -x $pg_bin/psql ]]; then
            return
        fi
    done
    pg_bin=
    return 1
}

# install_package MISSING HINT SCRIPT: runs a script with apt-get as root. If that is impossible or
# fails, it dies with the message MISSING.
install_package() {
    local missing=$1 hint=$2 script=$3 as_root=() log
    command -v apt-get >/dev/null || die "$missing" "$hint"
    if [[ $(id -u) != 0 ]]; then
        command -v sudo >/dev/null || die "$missing" "$hint"
        as_root=(sudo)
        # Without a terminal, nobody can type a password.
        [[ -t 0 ]] || as_root=(sudo -n)
    fi
    say "$missing: installing the Debian package${as_root[0]:+ with sudo}"
    log=$(mktemp)
    if ! "${as_root[@]}" sh -e -c "
        export DEBIAN_FRONTEND=noninteractive
        add() { apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=300 \"\$@\"; }
        apt-get update
        $script" >"$log" 2>&1 </dev/null; then
        tail -n 20 "$log" >&2
        rm -f "$log"
        die "$missing, and cannot install the package" "$hint"
    fi
    rm -f "$log"
}

install_postgres() {
    local missing="no PostgreSQL server programs (postgres, initdb) found"
    local hint="as root, run apt-get install postgresql; or set DATABASE_URL to a running server"
    # The package would create and start a cluster on port 5432. A setting prevents that. It is
    # removed again, so that later installations behave as usual.
    # shellcheck disable=SC2016 # the inner shell expands it
    install_package "$missing" "$hint" '
        setting=/etc/postgresql-common/createcluster.d/clerk2pg.conf
        trap "rm -f $setting" EXIT
        add postgresql-common
        mkdir -p "${setting%/*}"
        echo "create_main_cluster = false" >$setting
        add postgresql'
    find_postgres || die "$missing, although the package postgresql is installed" "$hint"
}

# Sets pgbouncer to the program. In Debian, its folder is not in the PATH of all users.
find_pgbouncer() {
    for pgbouncer in "${CLERK2PG_PGBOUNCER:-}" "$(command -v pgbouncer || true)" /usr/sbin/pgbouncer; do
        if [[ -x $pgbouncer ]]; then return; fi
    done
    pgbouncer=
    return 1
}

install_pgbouncer() {
    local missing="no PgBouncer found"
    local hint="as root, run apt-get install pgbouncer; or set CLERK2PG_PGBOUNCER to the program"
    # The package would start a service on port 6432, now and at each boot.
    # shellcheck disable=SC2016 # the inner shell expands it
    install_package "$missing" "$hint" '
        policy=/usr/sbin/policy-rc.d
        if [ ! -e $policy ]; then
            trap "rm -f $policy" EXIT
            printf "#!/bin/sh\nexit 101\n" >$policy
            chmod +x $policy
        fi
        add pgbouncer
        update-rc.d pgbouncer disable'
    find_pgbouncer || die "$missing, although the package pgbouncer is installed" "$hint"
}

# Sets owner to the options of setpriv that run a command as the owner of the clusters, and makes
# sure that the owner can reach their folder.
own_clusters() {
    [[ -d $clusters ]] || rm -f "$clusters"
    mkdir -p "$clusters"
    owner=()
    owner_id=$(id -u)
    [[ $owner_id == 0 ]] || return 0
    # PostgreSQL refuses to run as root.
    local user=nobody
    ! id postgres >/dev/null 2>&1 || user=postgres
    owner_id=$(id -u "$user")
    owner=(--reuid="$owner_id" --regid="$(id -g "$user")" --init-groups)
    if ! setpriv "${owner[@]}" test -x "$(readlink -f "$clusters")"; then
        # For example, a checkout under /root.
        rm -rf "$clusters"
        ln -s "$(mktemp -d /var/tmp/clerk2pg-XXXXXX)" "$clusters"
        chmod 711 "$clusters/"
    fi
}

# create_cluster NAME: creates a cluster with a random password.
create_cluster() {
    local dir
    dir=$(readlink -f "$clusters")/$1
    rm -rf "$dir"
    mkdir -m 700 "$dir"
    (umask 077 && od -An -N12 -tx1 /dev/urandom | tr -d ' \n' >"$dir/password")
    chown -R "$owner_id" "$dir"
    # From within the folder, because the owner may not be allowed into the current one.
    cd "$dir"
    spawn "${owner[@]}" "$pg_bin/initdb" --pgdata="$dir/data" --username=postgres --pwfile="$dir/password" \
        --auth=scram-sha-256 --encoding=UTF8 --no-locale --no-sync >"$dir/log" 2>&1
    cd "$OLDPWD"
    wait "${started[-1]}" || {
        cat "$dir/log" >&2
        die "initdb failed"
    }
}

# serve NAME PORT [-c SETTING=VALUE]…: starts the server of a cluster on a port. Fails if it does
# not start.
serve() {
    local dir port=$2
    dir=$(readlink -f "$clusters")/$1
    shift 2
    # No socket: its path is limited to 107 bytes, and that of the checkout may be longer.
    (cd "$dir" && exec setpriv --pdeathsig INT "${owner[@]}" "$pg_bin/postgres" -D "$dir/data" -p "$port" \
        -c listen_addresses=127.0.0.1 -c unix_socket_directories= "$@") >"$dir/log" 2>&1 </dev/null &
    server_pid=$!
    while ! gone "$server_pid" 0; do
        if [[ $(sed -n '1p;8p' "$dir/data/postmaster.pid" 2>/dev/null | tr -d ' \n') == "${server_pid}ready" ]]; then return; fi
        tick
    done
    server_pid=
    return 1
}

# start_cluster NAME [-c SETTING=VALUE]…: starts a cluster on a free port. Sets server to its
# address, without the name of a database.
start_cluster() {
    local name=$1 dir port
    dir=$(readlink -f "$clusters")/$name
    shift
    # It tries random ports until one is free, so that two scripts cannot choose the same. The range
    # is below the ports that the system gives to clients.
    for _ in {1..20}; do
        port=$((20000 + RANDOM % 12000))
        if serve "$name" "$port" "$@"; then
            server=postgres://postgres:$(<"$dir/password")@127.0.0.1:$port
            (umask 077 && printf '%s' "$server" >"$dir/server")
            return
        fi
        grep -q 'Address already in use' "$dir/log" || break
    done
    cat "$dir/log" >&2
    die "cannot start PostgreSQL"
}

# Removes clusters of scripts that were killed.
remove_leftovers() {
    local dir
    for dir in "$clusters"/*-[0-9]*; do
        if [[ -d $dir && ! -d /proc/${dir##*-} ]]; then rm -rf "$dir"; fi
    done
}

# Prepares for clusters: installs the server programs, and creates a folder. Unsets libpq's
# variables, which are meant for other servers.
prepare_clusters() {
    unset "${!PG@}"
    find_postgres || install_postgres
    own_clusters
    remove_leftovers
}

# Locks the cluster of the demo until this script ends. Fails if another script has locked it.
hold_demo() {
    local lock
    exec {lock}>"$clusters/demo.lock"
    flock --nonblock "$lock"
}

# start_sim PROGRAM OUTPUT OPTION…: starts the simulator on a free port, and sets CLERK_API_URL to
# its address.
start_sim() {
    local program=$1 output=$2
    shift 2
    spawn "$program" --port 0 "$@" >"$output"
    until grep -q listening "$output"; do
        ! gone "${started[-1]}" 0 || die "cannot start the simulator"
        tick
    done
    CLERK_API_URL=$(sed -n 's/^clerk-sim listening on \([^ ]*\) .*/\1/p' "$output")
    export CLERK_API_URL
}

# sim METHOD PATH [BODY]: sends a request to /_sim of the simulator, without curl.
sim() {
    local address=${CLERK_API_URL#http://} body=${3:-} connection
    exec {connection}<>"/dev/tcp/${address%:*}/${address#*:}"
    printf '%s /_sim/%s HTTP/1.1\r\nHost: sim\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s' "$1" "$2" "${#body}" "$body" >&"$connection"
    sed '1,/^\r$/d' <&"$connection"
    exec {connection}>&-
}
