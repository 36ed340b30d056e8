#!/bin/sh
# Unpacks the Docker engine of another Debian release into a folder, for the tests:
#     netns-tests/newer-engine.sh sid /var/tmp/engine
#     WEFT_DOCKERD=/var/tmp/engine/dockerd cargo test -p netns-tests --test docker
# Nothing of this system is changed. The engine runs with its own libraries and tools, in its own
# tree, in the mount namespace of whoever starts it.
set -eu

suite=${1:?"usage: $0 SUITE FOLDER"} folder=$(realpath -m "${2:?"usage: $0 SUITE FOLDER"}")
mkdir -p "$folder/apt/lists/partial" "$folder/apt/archives/partial" "$folder/root"
touch "$folder/apt/status"
# From where this system has its own packages.
# shellcheck disable=SC2016 # What stands in $() is for apt.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' | head -n 1)
echo "deb ${mirror:?"no mirror of Debian is known to apt"} $suite main" >"$folder/apt/sources.list"
cat >"$folder/apt/apt.conf" <<END
Dir::Etc::sourcelist "$folder/apt/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State "$folder/apt";
Dir::State::status "$folder/apt/status";
Dir::Cache "$folder/apt";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
END
export APT_CONFIG="$folder/apt/apt.conf"
apt-get -q update
apt-get -q install --yes --download-only docker.io iptables
for package in "$folder"/apt/archives/*.deb; do
    dpkg -x "$package" "$folder/root"
done

cd "$folder/root"
for name in bin sbin lib lib64; do
    [ -e "$name" ] || ln -s "usr/$name" "$name"
done
# What the packages would have been set up with.
for name in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do
    [ -e "usr/sbin/$name" ] || ln -s xtables-nft-multi "usr/sbin/$name"
done
mkdir -p proc sys dev run tmp root etc

cat >"$folder/dockerd" <<'END'
#!/bin/sh
set -eu
root=$(dirname "$(readlink -f "$0")")/root
if [ "${1-}" != --version ] && ! mountpoint -q "$root"; then
    # What the engine mounts below /run must be seen outside of the tree as well; but nothing
    # above the tree may be shared, or no container could have a root of its own.
    mount --rbind /run /run
    mount --make-rshared /run
    mount --bind "$root" "$root"
    for name in proc sys dev run tmp; do
        mount --rbind "/$name" "$root/$name"
    done
fi
exec chroot "$root" /usr/sbin/dockerd "$@"
END
chmod +x "$folder/dockerd"
"$folder/dockerd" --version
