"""runc without CAP_SYS_RESOURCE: take the capability out of the bundle's config.json or the
exec's process file, then become runc. For a host that itself lacks the capability, where
`docker run --privileged` fails with "unable to apply caps: operation not permitted"."""
import json, os, sys

def strip(path, inside):
    try:
        with open(path) as f:
            data = json.load(f)
    except (OSError, ValueError):
        return
    process = data.get("process", {}) if inside else data
    for names in (process.get("capabilities") or {}).values():
        while "CAP_SYS_RESOURCE" in names:
            names.remove("CAP_SYS_RESOURCE")
    tmp = path + ".nosr"
    with open(tmp, "w") as f:
        json.dump(data, f)
    os.replace(tmp, path)

args = sys.argv[1:]
for n, a in enumerate(args):
    key, eq, value = a.partition("=")
    if not eq:
        value = args[n + 1] if n + 1 < len(args) else ""
    if key in ("--bundle", "-b", "-bundle"):
        strip(os.path.join(value, "config.json"), True)
    elif key in ("--process", "-p", "-process"):
        strip(value, False)
runc = os.environ.get("REAL_RUNC") or "/usr/sbin/runc"
os.execv(runc, [runc] + args)
