package loki

import (
	"encoding/base64"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// lookEvery is how often a file with a secret is looked at for a change.
const lookEvery = 5 * time.Second

// auth makes the Authorization header. Safe for concurrent use.
type auth struct {
	user     string // basic when not empty
	password string
	file     string // of the password or the bearer token; "" when there is none

	mu     sync.Mutex
	looked time.Time   // when file was last looked at
	info   os.FileInfo // of the file as it was read
	value  string      // the header
	secret string      // what must not be told
}

func newAuth(c *Config) (*auth, error) {
	a := &auth{user: c.Username, password: c.Password}
	switch {
	case c.BearerTokenFile != "" && c.Username != "":
		return nil, fmt.Errorf("basic_auth and bearer_token_file exclude each other")
	case c.BearerTokenFile != "":
		a.file = c.BearerTokenFile
	case c.PasswordFile != "" && c.Password != "":
		return nil, fmt.Errorf("password and password_file exclude each other")
	case c.PasswordFile != "" && c.Username == "":
		return nil, fmt.Errorf("password_file needs a username")
	case c.PasswordFile != "":
		a.file = c.PasswordFile
	case c.Username != "":
		a.set(c.Password)
	}
	if a.file != "" {
		if err := a.read(); err != nil {
			return nil, err
		}
	}
	return a, nil
}

func (a *auth) set(secret string) {
	a.secret = secret
	if a.user != "" {
		a.value = "Basic " + base64.StdEncoding.EncodeToString([]byte(a.user+":"+secret))
		return
	}
	a.value = "Bearer " + secret
}

// read takes the secret from the file. The caller holds mu or is alone.
func (a *auth) read() error {
	info, err := os.Stat(a.file)
	if err != nil {
		return fmt.Errorf("read the secret: %w", err)
	}
	b, err := os.ReadFile(a.file)
	if err != nil {
		return fmt.Errorf("read the secret: %w", err)
	}
	s := strings.TrimSpace(string(b))
	if s == "" || strings.ContainsFunc(s, isControl) {
		return fmt.Errorf("read the secret: %s must hold one line, without control characters", a.file)
	}
	a.info = info
	a.set(s)
	return nil
}

// header gives the Authorization header, "" for none. A file that cannot be
// read any more is an error, and the secret known before is kept.
func (a *auth) header(now time.Time) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.file == "" || now.Sub(a.looked) < lookEvery && !a.looked.IsZero() {
		return a.value, nil
	}
	a.looked = now
	info, err := os.Stat(a.file)
	if err == nil && os.SameFile(info, a.info) && info.ModTime().Equal(a.info.ModTime()) && info.Size() == a.info.Size() {
		return a.value, nil
	}
	return a.value, a.read()
}

// refused makes the next header look at the file again.
func (a *auth) refused() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.looked = time.Time{}
}

// secrets gives what must not appear in a text.
func (a *auth) secrets() (secret, encoded string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, encoded, _ = strings.Cut(a.value, " ")
	return a.secret, encoded
}
