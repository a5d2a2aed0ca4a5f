#!/bin/sh
# Tells launchers what this host can do: without words it lists it, with words it exits 0 if it can do all of them.
# Cuttlefish's launcher runs this program, by this name, and gives up without it, whichever VM manager it uses. It is
# a shell script because no name of Python's is the same on all systems.
capabilities='capability_check qemu_cli vsock'
for want; do
    case " $capabilities " in *" $want "*) ;; *) exit 1 ;; esac
done
[ $# -gt 0 ] || echo "$capabilities"
