package config

import (
	"log/slog"
	"time"

	"go.yaml.in/yaml/v3"
)

// key is one key of the file. It is only made by one, many, oneOrMany and
// named, which want everything that a key must have.
type key struct {
	path string // such as "server.port"
	def  string // the default, as YAML
	unit string
	// allowed says which values are taken, doc what the key does; for the
	// reference, the former for errors as well.
	allowed, doc string
	// set decodes a value into the decoder's Config or reports what is wrong.
	set func(d *decoder, n *yaml.Node, path string)
	// get gives the value in a form that may be shown to anybody: see Effective.
	get func(*Config) any
}

// one is a key with a single value.
func one[T any](path, def string, k kind[T], field func(*Config) *T, doc string) key {
	return key{path, def, k.unit, k.allowed, doc, func(d *decoder, n *yaml.Node, path string) {
		if v, ok := scalar(d, n, path, k); ok {
			*field(d.cfg) = v
		}
	}, func(c *Config) any { return k.shown(*field(c)) }}
}

// many is a key with a list of values, at least minItems.
func many[T any](path, def string, k kind[T], minItems int, field func(*Config) *[]T, doc string) key {
	return key{path, def, k.unit, "list; each item: " + k.allowed, doc, func(d *decoder, n *yaml.Node, path string) {
		if v, ok := list(d, n, path, k, minItems); ok {
			*field(d.cfg) = v
		}
	}, func(c *Config) any { return k.shownAll(*field(c)) }}
}

// oneOrMany is a key with a list of values, or one of them without the list.
func oneOrMany[T any](path, def string, k kind[T], field func(*Config) *[]T, doc string) key {
	return key{path, def, k.unit, "a single item or a list; each item: " + k.allowed, doc, func(d *decoder, n *yaml.Node, path string) {
		if n.Kind == yaml.ScalarNode && !isNull(n) {
			if v, ok := scalar(d, n, path, k); ok {
				*field(d.cfg) = []T{v}
			}
		} else if v, ok := list(d, n, path, k, 0); ok {
			*field(d.cfg) = v
		}
	}, func(c *Config) any { return k.shownAll(*field(c)) }}
}

// named is a key with a section of names that the user chooses.
func named[T any](path, def string, names kind[string], k kind[T], field func(*Config) *map[string]T, doc string) key {
	allowed := "names and values; each name: " + names.allowed + "; each value: " + k.allowed
	return key{path, def, k.unit, allowed, doc, func(d *decoder, n *yaml.Node, path string) {
		if v, ok := dict(d, n, path, names, k); ok {
			*field(d.cfg) = v
		}
	}, func(c *Config) any {
		all := make(map[string]any, len(*field(c)))
		for name, v := range *field(c) {
			all[name] = k.shown(v)
		}
		return all
	}}
}

// schema is every key there is, in the order of the reference. The document
// strings are Markdown.
func schema() []key {
	const none = `""`
	container := func(c *Config) *Container { return &c.Monitors.Container }
	loki := func(c *Config) *Loki { return &c.Sinks.Loki }
	return []key{
		one("host", none, optional(word("a label value", maxLabelValue)),
			func(c *Config) *string { return &c.Host },
			"Value of the label `host` on every line. Empty: the Docker engine's own name (`docker info`, Name)."),
		one("data_dir", "/var/lib/log_capturer", filePath(),
			func(c *Config) *string { return &c.DataDir },
			"Directory of everything the agent must remember: positions, the spool and dead letters. Keep it across restarts and upgrades, on a local disk; one agent per directory. Without it every log is read as on a first start."),
		one("shutdown_grace", "5s", duration(0, 10*time.Minute, "stop at once"),
			func(c *Config) *time.Duration { return &c.ShutdownGrace },
			"How long a stop (SIGTERM, SIGINT) waits for lines under way to be delivered, or written to the spool. What is in neither by then is read again at the next start. Keep it below the grace period of whoever stops the agent (`docker stop`: 10 s)."),

		one("server.host", "127.0.0.1", hostName(),
			func(c *Config) *string { return &c.Server.Host },
			"Address that the HTTP server listens on. `0.0.0.0` or `\"::\"` opens it to the network; what it shows has neither authentication nor encryption. What changes the agent wants the token of `token_file` there."),
		one("server.port", "8401", integer(0, 65535),
			func(c *Config) *int { return &c.Server.Port },
			"Port of the HTTP server. 0 takes any free port and logs which."),
		one("server.token_file", none, optional(filePath()),
			func(c *Config) *string { return &c.Server.TokenFile },
			"File that holds a token of at least 16 bytes. Who sends it (`Authorization: Bearer ...`) may reload and see the configuration and the profiles from another machine. It is read anew for each such request. Empty: only this machine may, without a token."),
		one("server.pprof", "false", boolean(),
			func(c *Config) *bool { return &c.Server.Pprof },
			"Serve Go's profiles under `/debug/pprof/`, to this machine, and with the token to others."),

		one("log.level", "info", logLevel(),
			func(c *Config) *slog.Level { return &c.Log.Level },
			"Least severe level of the agent's own log, which goes to standard error."),
		one("log.format", FormatText, choice(FormatText, FormatJSON),
			func(c *Config) *string { return &c.Log.Format },
			"Form of the agent's own log: `key=value` text, or one JSON object per line."),

		one("docker.host", none, optional(dockerHost()),
			func(c *Config) *string { return &c.Docker.Host },
			"Address of the Docker engine. Empty: `DOCKER_HOST` of the environment, else `unix:///var/run/docker.sock`."),
		one("docker.containers_dir", none, optional(absolutePath()),
			func(c *Config) *string { return &c.Docker.ContainersDir },
			"Where the engine's `containers` directory is seen by the agent. Set it when the agent runs in a container and the directory is mounted at another path. Empty: the path that the engine reports."),

		one("monitors.container.enabled", "true", boolean(),
			func(c *Config) *bool { return &container(c).Enabled },
			"Whether the logs of containers are captured."),
		oneOrMany("monitors.container.include", "[]", containerRule(true),
			func(c *Config) *[]ContainerRule { return &container(c).Include },
			"Capture only containers that at least one of these rules fits. Empty: all. See [Which containers are captured](#which-containers-are-captured)."),
		oneOrMany("monitors.container.exclude", "[]", containerRule(false),
			func(c *Config) *[]ContainerRule { return &container(c).Exclude },
			"Never capture containers that one of these rules fits, whatever `include` says."),
		one("monitors.container.file_based_monitoring.enabled", "true", boolean(),
			func(c *Config) *bool { return &container(c).FileBasedMonitoring.Enabled },
			"Whether containers are read from their files. `false`: everything is streamed through the Docker API, which is the switch to roll back with. See [Files and streams](#files-and-streams)."),
		many("monitors.container.file_based_monitoring.log_drivers", "[json-file]", choice("json-file"), 1,
			func(c *Config) *[]string { return &container(c).FileBasedMonitoring.LogDrivers },
			"Log drivers whose containers are read from the driver's files."),
		one("monitors.container.file_based_monitoring.fallback_to_streaming", "true", boolean(),
			func(c *Config) *bool { return &container(c).FileBasedMonitoring.FallbackToStreaming },
			"Whether what cannot be read from a file is streamed: containers with other log drivers, and those whose file cannot be read, until it can."),
		one("monitors.container.streaming.enabled", "true", boolean(),
			func(c *Config) *bool { return &container(c).Streaming.Enabled },
			"Whether containers may be streamed through the Docker API at all."),
		one("monitors.container.streaming.max_streams", "50", integer(1, 1000),
			func(c *Config) *int { return &container(c).Streaming.MaxStreams },
			"Most connections to the engine for streams at a time. It bounds connections, not containers: those above it are read in turns, so that their lines come later."),
		one("monitors.container.read_from", FromBeginning, choice(FromBeginning, FromEnd),
			func(c *Config) *string { return &container(c).ReadFrom },
			"Where to start with the log of a container that is older than the agent's first start (on this `data_dir`). The log of a later container is always read from its beginning."),
		one("monitors.container.ignore_older_than", "168h", duration(time.Minute, 100*365*24*time.Hour, "off"),
			func(c *Config) *time.Duration { return &container(c).IgnoreOlderThan },
			"In the logs of containers that are older than the agent's first start (on this `data_dir`), entries that were older than this at that start are skipped and counted. The default is Loki's own limit (`reject_old_samples_max_age`): it would refuse them."),
		one("monitors.container.max_line_bytes", "256KiB", size(1<<10, 1<<20, ""),
			func(c *Config) *int { return &container(c).MaxLineBytes },
			"A longer line is shipped in pieces of this size. The default is Loki's own limit (`max_line_size`); with a higher one here, raise it there too."),
		many("monitors.container.container_labels", "[]", containerLabel(), 0,
			func(c *Config) *[]ContainerLabel { return &container(c).ContainerLabels },
			"Labels of containers that their lines get as labels too. Every character but letters, digits and `_` becomes `_` in the name. Choose labels of few different values."),

		one("spool.max_bytes", "1GiB", size[int64](16<<20, 1<<40, "no spool"),
			func(c *Config) *int64 { return &c.Spool.MaxBytes },
			"Most that the spool may take in `data_dir`, on disk and compressed: lines that the store does not take. See [The spool](#the-spool)."),
		one("spool.min_free_bytes", "256MiB", size[int64](0, 1<<40, "no floor"),
			func(c *Config) *int64 { return &c.Spool.MinFreeBytes },
			"Space that the spool leaves free on the file system of `data_dir`, for positions and everybody else there: it is full as soon as less would be."),

		one("sinks.loki.url", none, optional(lokiURL()),
			func(c *Config) *string { return &loki(c).URL },
			"Address of the log store, which must speak HTTP/1.1. Used as it is, query included, if its path ends in `/push`; otherwise `/loki/api/v1/push` is appended to its path. Do not put credentials into it."),
		one("sinks.loki.tenant_id", none, optional(tenantID()),
			func(c *Config) *string { return &loki(c).TenantID },
			"Tenant, sent as the header `X-Scope-OrgID`. Empty: the header is not sent."),
		one("sinks.loki.basic_auth.username", none, optional(userName()),
			func(c *Config) *string { return &loki(c).BasicAuth.Username },
			"User for HTTP basic authentication, with exactly one of `password` and `password_file`. Not together with `bearer_token_file`."),
		one("sinks.loki.basic_auth.password", none, optional(secret("a password")),
			func(c *Config) *Secret { return &loki(c).BasicAuth.Password },
			"Password for HTTP basic authentication. Better from a variable (`${LOKI_PASSWORD}`) or from `password_file`."),
		one("sinks.loki.basic_auth.password_file", none, optional(filePath()),
			func(c *Config) *string { return &loki(c).BasicAuth.PasswordFile },
			"File that holds the password."),
		one("sinks.loki.bearer_token_file", none, optional(filePath()),
			func(c *Config) *string { return &loki(c).BearerTokenFile },
			"File that holds a token, sent as `Authorization: Bearer ...`. Not together with `basic_auth`."),
		one("sinks.loki.tls.ca_file", none, optional(filePath()),
			func(c *Config) *string { return &loki(c).TLS.CAFile },
			"PEM file of the authorities that may vouch for the store. Empty: those of the system."),
		one("sinks.loki.tls.cert_file", none, optional(filePath()),
			func(c *Config) *string { return &loki(c).TLS.CertFile },
			"PEM file of the client certificate, together with `key_file`."),
		one("sinks.loki.tls.key_file", none, optional(filePath()),
			func(c *Config) *string { return &loki(c).TLS.KeyFile },
			"PEM file of the key of the client certificate."),
		one("sinks.loki.tls.server_name", none, optional(hostName()),
			func(c *Config) *string { return &loki(c).TLS.ServerName },
			"Name that the store's certificate must have. Empty: the host of the URL."),
		one("sinks.loki.tls.insecure_skip_verify", "false", boolean(),
			func(c *Config) *bool { return &loki(c).TLS.InsecureSkipVerify },
			"Accept any certificate. For tests only: whoever is in between can read and change everything."),
		named("sinks.loki.headers", "{}", headerName(), secret("a header value"),
			func(c *Config) *map[string]Secret { return &loki(c).Headers },
			"Further headers of every request. Values are kept secret."),
		named("sinks.loki.labels", "{}", labelName(), labelValue(),
			func(c *Config) *map[string]string { return &loki(c).Labels },
			"Further labels of every line, the same for all."),
		one("sinks.loki.structured_metadata", "true", boolean(),
			func(c *Config) *bool { return &loki(c).StructuredMetadata },
			"Send what is not a label, such as the container's ID and its full image reference, as structured metadata."),
		one("sinks.loki.ship_malformed", "true", boolean(),
			func(c *Config) *bool { return &loki(c).ShipMalformed },
			"Send lines of a log file that are no Docker entry raw, with the label `malformed=\"true\"`. Whatever this says, they are counted, and copied to the dead-letter file unless they are skipped as too old (`ignore_older_than`)."),
		one("sinks.loki.batch_wait", "140ms", duration(time.Millisecond, 10*time.Second, ""),
			func(c *Config) *time.Duration { return &loki(c).BatchWait },
			"Longest time that a line waits for others to fill its batch. Less is faster, more is fewer requests."),
		one("sinks.loki.batch_bytes", "1MiB", size(64<<10, 3<<20, ""),
			func(c *Config) *int { return &loki(c).BatchBytes },
			"The largest request, before compression. A batch, which is what is kept in memory and in the spool, is as large, and up to three times as large while the store is quick, six times where it is far away (6 MiB at most). The store takes 4 MiB by default."),
		one("sinks.loki.timeout", "10s", duration(100*time.Millisecond, 5*time.Minute, ""),
			func(c *Config) *time.Duration { return &loki(c).Timeout },
			"How long a request may take before it is given up and sent again. Where there is a spool, what is read does not wait for that: after a second of silence it goes there."),

		one("sinks.stdout.enabled", "false", boolean(),
			func(c *Config) *bool { return &c.Sinks.Stdout.Enabled },
			"Write lines to standard output instead of a store: to try the agent out. Not together with `sinks.loki.url`."),
	}
}
