package cluster_test

import (
	"net"
	"sync"
	"testing"
)

// proxy carries connections to one address, and can hold what goes either way, as
// a network does that loses everything: connections stay, nothing arrives, and
// what was sent arrives when it is whole again.
type proxy struct {
	to       string
	listener net.Listener

	mu    sync.Mutex
	whole sync.Cond // tells of changes of there and back
	there bool      // nothing arrives at the address
	back  bool      // nothing comes back from it
	ended bool
	conns []net.Conn
}

// newProxy listens on a free port of a host, until the test ends.
func newProxy(t *testing.T, host, to string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{to: to, listener: l}
	p.whole.L = &p.mu
	var wg sync.WaitGroup
	wg.Go(func() { p.accept(&wg) })
	t.Cleanup(func() {
		l.Close()
		p.end()
		wg.Wait()
	})
	return p
}

func (p *proxy) address() string { return p.listener.Addr().String() }

// hold has nothing arrive there, or come back, from now on.
func (p *proxy) hold(there, back bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.there, p.back = there, back
	p.whole.Broadcast()
}

func (p *proxy) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	p.whole.Broadcast()
	for _, c := range p.conns {
		c.Close()
	}
}

func (p *proxy) accept(wg *sync.WaitGroup) {
	for {
		in, err := p.listener.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", p.to)
		if err != nil {
			in.Close() // the server does not run
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, in, out)
		if p.ended {
			in.Close()
			out.Close()
		}
		p.mu.Unlock()
		wg.Go(func() { p.carry(out, in, &p.there) })
		wg.Go(func() { p.carry(in, out, &p.back) })
	}
}

// carry moves bytes while they are not held.
func (p *proxy) carry(to, from net.Conn, held *bool) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		for *held && !p.ended {
			p.whole.Wait()
		}
		p.mu.Unlock()
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
