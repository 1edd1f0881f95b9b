#!/usr/bin/env bash
# Trains on two "hosts", network namespaces with a cable between them: two_hosts.sh PYTHON, run in a namespace of its own,
# in a folder with host0.json and host1.json. Each host knows the other's address alone, as machines do.
set -euo pipefail

unshare --net sleep 300 &
other=$!
trap 'kill $other' EXIT
until [ "$(readlink /proc/$other/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.1; done
ip link add cable0 type veth peer name cable1
ip link set cable1 netns $other
ip addr add 10.77.0.1/24 dev cable0
ip link set cable0 up
ip link set lo up
nsenter --target $other --net bash -c 'ip addr add 10.77.0.2/24 dev cable1; ip link set cable1 up; ip link set lo up'

export PET_NNODES=2 PET_MASTER_ADDR=10.77.0.1 PET_MASTER_PORT=29500 TQDM_DISABLE=1
train='
import sys
from pathlib import Path
from titlegen.train.devices import Devices
from titlegen.train.launch import train_on
from titlegen.train.work import Work
train_on(Devices(1, "one process", "2"), Work.model_validate_json(Path(sys.argv[1]).read_bytes()))
'
PET_NODE_RANK=1 GLOO_SOCKET_IFNAME=cable1 nsenter --target $other --net "$1" -c "$train" host1.json &
second=$!
PET_NODE_RANK=0 GLOO_SOCKET_IFNAME=cable0 "$1" -c "$train" host0.json
wait $second
