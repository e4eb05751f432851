package server

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// guard lets through who may change the agent or see what is not for everybody:
// this machine, and who has the token. It is safe for concurrent use.
//
// That a request comes from this machine is not enough by itself. A web page
// that somebody here looks at can send requests, too (they have the header
// Origin, or Sec-Fetch-Site), also to a name of its own that it lets point to
// this machine (then Host is that name); and a proxy that runs here passes on
// the requests of others.
type guard struct {
	tokenFile string // empty: there is no token
	log       *slog.Logger

	mu        sync.Mutex
	complaint string // what was last said of the token file
}

const (
	// minTokenBytes is what cannot be guessed: 16 random bytes as text are more.
	minTokenBytes = 16
	maxTokenBytes = 4 << 10
)

// wrap guards a handler.
func (g *guard) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if fromHere(r) || g.hasToken(r) {
			next.ServeHTTP(w, r)
			return
		}
		if g.tokenFile == "" {
			reply(w, http.StatusForbidden, textType, []byte("only from this machine, and neither from a web page nor through a proxy; to allow it from elsewhere, set server.token_file\n"))
			return
		}
		w.Header().Set("WWW-Authenticate", "Bearer")
		reply(w, http.StatusUnauthorized, textType, []byte("only from this machine, or with the token of server.token_file: Authorization: Bearer TOKEN\n"))
	})
}

// fromHere reports whether a request was made on this machine by a program that
// is neither a proxy nor a web page, as far as it shows. That a header is there
// counts, whatever it says: a proxy may add its own behind an empty one that its
// client has sent. HTTP/1.0 is what nginx speaks, without any such header, unless
// it is told otherwise.
func fromHere(r *http.Request) bool {
	if !fromLoopback(r.RemoteAddr) || !namesLoopback(r.Host) || !r.ProtoAtLeast(1, 1) {
		return false
	}
	for name, values := range r.Header {
		switch {
		case name == "Origin", name == "Forwarded", name == "Via", name == "X-Real-Ip", strings.HasPrefix(name, "X-Forwarded-"):
			return false
		case name == "Sec-Fetch-Site" && slices.ContainsFunc(values, func(v string) bool { return v != "none" && v != "same-origin" }):
			return false
		}
	}
	return true
}

func fromLoopback(remote string) bool {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// namesLoopback reports whether a Host is localhost or an address of loopback:
// who sends a request there without a proxy reaches this machine by it.
func namesLoopback(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")
	if strings.EqualFold(name, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(name)
	return err == nil && addr.Unmap().IsLoopback()
}

// hasToken reports whether a request has the token. The file is read each time:
// who changes it need not tell the agent.
func (g *guard) hasToken(r *http.Request) bool {
	scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if g.tokenFile == "" || !strings.EqualFold(scheme, "Bearer") {
		return false
	}
	want, err := readToken(g.tokenFile)
	g.complain(err)
	if err != nil {
		return false
	}
	// Sums are of one length, so that not even the token's shows in the time.
	a, b := sha256.Sum256([]byte(strings.TrimSpace(given))), sha256.Sum256(want)
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// complain logs what is wrong with the token file when it is something new.
func (g *guard) complain(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	g.mu.Lock()
	said := g.complaint == text
	g.complaint = text
	g.mu.Unlock()
	if err != nil && !said {
		g.log.Warn("token cannot be used: requests from other machines that need it are refused until it can", "error", err)
	}
}

// readToken reads a token, without the white space around it.
func readToken(file string) ([]byte, error) {
	// Not to hang at a pipe that nobody writes to.
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("read server.token_file: %w", err)
	}
	defer func() { _ = f.Close() }() // only read from
	data, err := io.ReadAll(io.LimitReader(f, maxTokenBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read server.token_file: %w", err)
	}
	token := bytes.TrimSpace(data)
	switch {
	case len(data) > maxTokenBytes:
		return nil, fmt.Errorf("read server.token_file: %s is larger than %d bytes: is it the right file?", file, maxTokenBytes)
	case len(token) < minTokenBytes:
		return nil, fmt.Errorf("read server.token_file: the token in %s has fewer than %d bytes: make one with openssl rand -hex 32", file, minTokenBytes)
	case bytes.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return nil, errors.New("read server.token_file: the token in " + file + " has a space or a character beyond ASCII, which no header can have")
	}
	return token, nil
}
