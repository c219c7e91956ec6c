//! The `config.toml` that a first start leaves behind: every setting, explained, commented out.

/// Lines with `# ` are words, lines with `#name` are settings at their defaults.
pub(super) const TEMPLATE: &str = r##"# Settings of this starfish node. Each one can also be given in the environment (STARFISH_PORT, ...)
# or as a flag of `starfish up`; a flag wins over the environment, which wins over this file.
# Changes take effect at the next start.

# The port of the swarm, for QUIC (UDP) and TCP. 0 takes a free one, and the same again as long as it is free.
#port = 12036

# The port of the HTTP API on 127.0.0.1. 0 takes a free one. The token for it is in `api.token`.
#api_port = 12037

# Look for members of this swarm on the local network.
#mdns = true

# Ask the router to open the port (UPnP), so that members elsewhere can reach this node directly.
#upnp = false

# The local IP addresses to listen on.
#listen = ["0.0.0.0", "::"]

# Addresses at which others reach this node, if it cannot find them out by itself, for instance
# "/dns4/node.example.org/udp/12036/quic-v1".
#external = []

# How many tasks run here at once: a number (0 to run none), or "auto" for one a core.
#slots = "auto"

# Where this machine stands, in a word of yours: "office", "cellar". What is stored is spread over zones.
#zone = ""

# The most memory that one task may have here, in MiB.
#task_memory_mib = 1024

# Whether tasks may send HTTP requests from this machine, to hosts that they were granted by name.
#task_http = true

# How log lines look: "text" or "json". What is logged is in RUST_LOG.
#log_format = "text"

# The most that this node keeps of the swarm's files, such as "200G"; "max" is what the disk has, but for a reserve.
#storage.quota = "max"

# The most that stays here of files that were read lately.
#storage.cache = "256M"

# How long a member that fell silent is waited for before what it held is made anew on others.
#repair.grace = "10m"

# Bytes per second that are moved or made anew when members come and go.
#repair.rate = "64M"

# How often what no file and no version refers to is freed, and how many segments and shards are looked at in a second for
# it. With 0 for either, this node never frees anything.
#gc.every = "1h"
#gc.rate = 100000

# How often all that this node keeps is held against its hashes, and how many bytes per second are read for it. With 0 for
# either, this node only notices damage when something is read.
#scrub.every = "1d"
#scrub.rate = "4M"

# The port for Redis clients on 127.0.0.1, for instance 6379; 0 opens none. The password is the token in `api.token`.
#memory.redis = 0

# When what Redis clients write is acknowledged: "always" is once it is on the disk; "everysec" is about a second before that, which is
# faster, but a power failure takes what was written within that second.
#memory.redis_sync = "always"

# How long deletions of keys are remembered, such as "30d": the same on all nodes, and longer than any two of them are apart.
#memory.horizon = "30d"
"##;
