package main

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// certificateCheck is how often, at most, the files are looked at.
const certificateCheck = 5 * time.Second

// certificate is a certificate in files that may be replaced while it is used.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger

	mu      sync.Mutex // guards the fields below
	current *tls.Certificate
	written time.Time // when the newer of the files that were read was written
	checked time.Time
}

// loadTLS reads the certificate and makes the server's side of TLS 1.3 of it.
func loadTLS(certFile, keyFile string, log *slog.Logger) (*tls.Config, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, log: log}
	if err := c.read(); err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: c.get}, nil
}

func (c *certificate) read() error {
	written, err := c.lastWritten()
	if err != nil {
		return fmt.Errorf("the TLS certificate cannot be read: %w", err)
	}
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("TLS certificate %s with key %s: %w", c.certFile, c.keyFile, err)
	}
	c.current, c.written, c.checked = &pair, written, time.Now()
	return nil
}

func (c *certificate) lastWritten() (newest time.Time, err error) {
	for _, name := range []string{c.certFile, c.keyFile} {
		info, err := os.Stat(name)
		if err != nil {
			return newest, err
		}
		if info.ModTime().After(newest) {
			newest = info.ModTime()
		}
	}
	return newest, nil
}

// get answers the newest certificate that could be read.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.checked) >= certificateCheck {
		c.checked = now
		written, err := c.lastWritten()
		if err == nil && !written.Equal(c.written) {
			if err = c.read(); err == nil {
				c.log.Info("TLS certificate read again", "file", c.certFile)
			}
		}
		if err != nil {
			c.log.Error("TLS certificate cannot be read again; the old one stays in use", "error", err)
		}
	}
	return c.current, nil
}
