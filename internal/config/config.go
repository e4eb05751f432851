package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// Config is a complete, checked configuration. What each field means is said
// in the schema. It is not changed after Load and may be read by anyone.
type Config struct {
	Host          string // empty: the engine's own name
	DataDir       string
	Server        Server
	Log           Log
	ShutdownGrace time.Duration
	Docker        Docker
	Monitors      Monitors
	Spool         Spool
	Sinks         Sinks
}

// Server is where the HTTP server listens, and what it allows to whom.
type Server struct {
	Host string
	Port int // 0: any free port
	// TokenFile holds what a client on another machine must send to change the
	// agent or to see what is not for everybody; empty: it may not.
	TokenFile string
	Pprof     bool // serve profiles
}

// Address is host and port as net.Listen takes them.
func (s Server) Address() string { return net.JoinHostPort(s.Host, strconv.Itoa(s.Port)) }

// The values of Log.Format.
const (
	FormatText = "text"
	FormatJSON = "json"
)

// Log is how the agent itself logs.
type Log struct {
	Level  slog.Level
	Format string // FormatText or FormatJSON
}

// Docker is how the engine is reached.
type Docker struct {
	Host          string // empty: the environment's default
	ContainersDir string // empty: "containers" in the engine's own root
}

// Monitors are the sources of lines.
type Monitors struct {
	Container Container
}

// The values of Container.ReadFrom.
const (
	FromBeginning = "beginning"
	FromEnd       = "end"
)

// Container is how containers' logs are read.
type Container struct {
	Enabled             bool
	Include             []ContainerRule // empty: all
	Exclude             []ContainerRule // wins over Include
	FileBasedMonitoring FileBasedMonitoring
	Streaming           Streaming
	ReadFrom            string        // FromBeginning or FromEnd
	IgnoreOlderThan     time.Duration // 0: off
	MaxLineBytes        int
	ContainerLabels     []ContainerLabel
}

// The values of ContainerRule.Field.
const (
	RuleName     = "name"
	RuleImage    = "image"
	RuleLabel    = "label"
	RuleLabelled = "labelled"
)

// ContainerRule is one rule of Include or Exclude. It fits a container whose
// name (without Docker's slash), image reference (as given at the container's
// creation) or label value is Pattern as a whole.
type ContainerRule struct {
	// Field is what the rule looks at: RuleName, RuleImage or RuleLabel; or
	// RuleLabelled, in Include only, for containers with the label
	// log_capturer.enable=true.
	Field string
	// Label is the label's key, taken literally; empty unless Field is
	// RuleLabel.
	Label string
	// Pattern is a glob: * is any run of characters, also / and none, ? is one
	// character, all else is literal. It is empty for RuleLabelled, and for a
	// RuleLabel that only wants the label to be there, whatever its value.
	Pattern string
}

// FileBasedMonitoring says which containers are read from files. Enabled and
// Streaming.Enabled are never both false unless Container.Enabled is.
type FileBasedMonitoring struct {
	Enabled             bool     // false: everything is streamed
	LogDrivers          []string // at least one
	FallbackToStreaming bool     // what cannot be read from a file is streamed
}

// Streaming is how containers are followed through Docker's API.
type Streaming struct {
	Enabled    bool
	MaxStreams int // connections at a time; the containers above it take turns
}

// ContainerLabel is a label of a container that becomes a label of its lines.
type ContainerLabel struct {
	Container string // the name at the container, such as com.example.team
	Label     string // the name at the store, such as com_example_team
}

// Spool is what is kept on disk, in bytes, while the store does not take lines.
type Spool struct {
	MaxBytes     int64 // of all its files; 0: there is no spool
	MinFreeBytes int64 // left free on the file system; 0: nothing
}

// Sinks are the destinations of lines. Exactly one is configured: Stdout when
// Stdout.Enabled, otherwise Loki.
type Sinks struct {
	Loki   Loki
	Stdout Stdout
}

// Loki is a store that takes Loki's push protocol.
type Loki struct {
	URL                string // empty: not used; see PushURL
	TenantID           string
	BasicAuth          BasicAuth
	BearerTokenFile    string
	TLS                TLS
	Headers            map[string]Secret // by canonical name
	Labels             map[string]string
	StructuredMetadata bool
	ShipMalformed      bool
	BatchWait          time.Duration
	BatchBytes         int
	Timeout            time.Duration
}

// pushPath is where Loki takes pushes (Loki's HTTP API reference).
const pushPath = "/loki/api/v1/push"

// PushURL is the address that lines are posted to: the configured URL as it
// is, query included, if its path ends in /push; otherwise Loki's path is
// appended to its path.
func (l Loki) PushURL() string {
	u, err := url.Parse(l.URL)
	if err != nil || l.URL == "" || strings.HasSuffix(u.Path, "/push") {
		return l.URL // an invalid URL does not pass Load
	}
	u.Path = strings.TrimRight(u.Path, "/") + pushPath
	if u.RawPath != "" {
		u.RawPath = strings.TrimRight(u.RawPath, "/") + pushPath
	}
	return u.String()
}

// BasicAuth is HTTP basic authentication; used when Username is not empty, and
// then with exactly one of the two others.
type BasicAuth struct {
	Username     string
	Password     Secret
	PasswordFile string
}

// TLS is how an https:// store is verified, and the client known to it.
type TLS struct {
	CAFile, CertFile, KeyFile string
	ServerName                string
	InsecureSkipVerify        bool
}

// Stdout is the mode in which lines are written to standard output.
type Stdout struct {
	Enabled bool
}

// Secret is text that must not be shown. Every way of formatting, logging or
// encoding it gives a placeholder; only Reveal gives the text.
type Secret string

// Reveal gives the text itself.
func (s Secret) Reveal() string { return string(s) }

// String gives a placeholder, or "" for an empty secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "[hidden]"
}

// Format implements fmt.Formatter, so that no verb shows the text.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalText implements encoding.TextMarshaler (JSON, slog and others).
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// maxFileBytes bounds what is read: a configuration file is some KiB, a larger
// one is some other file.
const maxFileBytes = 1 << 20

// Load reads and checks the file at path. Variables are looked up by env, which
// has the form of os.LookupEnv. What is wrong within the file comes as Errors;
// any other error says that the file could not be read.
func Load(path string, env func(string) (string, bool)) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read configuration: %w: name the file with -config FILE", err)
		}
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	defer func() { _ = f.Close() }() // only read from
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	if len(data) > maxFileBytes {
		return nil, fmt.Errorf("read configuration: %s is larger than %d bytes: is it the right file?", path, maxFileBytes)
	}
	return parse(path, data, env)
}

// parse is Load on the bytes of a file.
func parse(file string, data []byte, env func(string) (string, bool)) (*Config, error) {
	d := newDecoder(file, env)
	d.document(data)
	d.check()
	if len(d.errs) > 0 {
		return nil, d.errs.sorted()
	}
	return d.cfg, nil
}
