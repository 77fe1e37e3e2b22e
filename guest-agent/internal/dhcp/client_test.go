package dhcp

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// server answers as a test has it; nil is silence.
type server struct {
	mu     sync.Mutex
	answer func(q message, from netip.Addr) []message
	asked  []message
	from   []netip.Addr // where the questions came from
}

// questions are what was asked so far, and from where.
func (s *server) questions() ([]message, []netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked), slices.Clone(s.from)
}

// becomes has the server answer otherwise from now on.
func (s *server) becomes(answer func(q message, from netip.Addr) []message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

type wire struct {
	s      *server
	back   chan []byte
	closed chan struct{}
	once   sync.Once
}

func (s *server) dial() (Transport, error) {
	return &wire{s: s, back: make(chan []byte, 100), closed: make(chan struct{})}, nil
}

func (w *wire) Send(raw []byte, from netip.Addr) error {
	q, err := parse(raw)
	if err != nil {
		return err
	}
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	w.s.asked, w.s.from = append(w.s.asked, q), append(w.s.from, from)
	for _, a := range w.s.answer(q, from) {
		w.back <- a.marshal()
	}
	return nil
}

func (w *wire) Receive(until time.Time) ([]byte, error) {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case raw := <-w.back:
		return raw, nil
	case <-timer.C:
		return nil, os.ErrDeadlineExceeded
	case <-w.closed:
		return nil, os.ErrClosed
	}
}

func (w *wire) Close() error {
	w.once.Do(func() { close(w.closed) })
	return nil
}

func (s *server) client() *Client {
	return &Client{MAC: [6]byte{2, 0, 0, 0, 0, 7}, Dial: s.dial, Logger: slog.New(slog.DiscardHandler)}
}

// lends answers everything as a good server does.
func lends(q message, _ netip.Addr) []message {
	if q.kind() == discover {
		return []message{answer(offer, q)}
	}
	return []message{answer(ack, q)}
}

func TestObtain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: lends}
		l, err := s.client().Obtain(t.Context())
		if err != nil || l.Address.String() != "10.1.2.3/24" || l.Expire != time.Hour {
			t.Fatalf("%+v, %v", l, err)
		}
		if len(s.asked) != 2 || s.asked[1].kind() != request || string(s.asked[1].options[optRequested]) != "\x0a\x01\x02\x03" || !s.asked[0].broadcast {
			t.Errorf("%+v", s.asked)
		}
	})
}

// Lost packets are sent again, at longer and longer intervals; what is not meant
// for this client, or cannot be used, is passed over; after a refusal all begins
// anew.
func TestObtainAgainstTheOdds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		count := 0
		s := &server{}
		s.answer = func(q message, from netip.Addr) []message {
			count++
			good := lends(q, from)[0]
			other, mine, useless, request := good, good, answer(good.kind(), q), good
			other.id++
			mine.mac[5]++
			useless.options[optMask] = []byte{255, 0, 255, 0}
			request.fromServer = false
			noise := []message{other, mine, useless, request}
			switch count {
			case 1, 2:
				return noise
			case 4:
				return append(noise, answer(nak, q))
			}
			return append(noise, good)
		}
		begin := time.Now()
		l, err := s.client().Obtain(t.Context())
		if err != nil || l.Address.String() != "10.1.2.3/24" {
			t.Fatalf("%+v, %v", l, err)
		}
		if took := time.Since(begin); took != 4*time.Second || count != 6 {
			t.Errorf("%v and %d questions", took, count)
		}
	})
}

func TestObtainFromNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(message, netip.Addr) []message { return nil }}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		begin := time.Now()
		if _, err := s.client().Obtain(ctx); !errors.Is(err, errSilence) || time.Since(begin) != 30*time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		if n := len(s.asked); n < 5 || n > 12 {
			t.Errorf("%d questions", n)
		}
	})
}

// keeper follows a lease and writes down what happens.
type keeper struct {
	mu     sync.Mutex
	events []string
	cancel context.CancelFunc
	done   chan struct{}
}

func (k *keeper) note(event string, l Lease) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.events = append(k.events, event+" "+l.Address.String())
}

// said is what happened so far.
func (k *keeper) said() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.events)
}

func keep(t *testing.T, s *server, l Lease) *keeper {
	ctx, cancel := context.WithCancel(t.Context())
	k := &keeper{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(k.done)
		s.client().Keep(ctx, l,
			func(l Lease) error { k.note("apply", l); return nil },
			func(l Lease) error {
				k.events = append(k.events, "lost "+l.Address.String())
				return errors.New("too late")
			})
	}()
	return k
}

func first(t *testing.T) Lease {
	t.Helper()
	l, err := answer(ack, message{}).lease(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// A lease is renewed when half of it is over, with the address that the client
// has, and nothing is changed that need not be.
func TestRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: lends}
		k := keep(t, s, first(t))
		<-time.After(29 * time.Minute)
		synctest.Wait()
		if asked, _ := s.questions(); len(asked) != 0 {
			t.Errorf("too early: %+v", asked)
		}
		<-time.After(3 * time.Hour)
		synctest.Wait()
		asked, from := s.questions()
		if len(asked) != 6 || asked[0].kind() != request || asked[0].client.String() != "10.1.2.3" || from[0].String() != "10.1.2.3" || asked[0].options[optServer] != nil {
			t.Errorf("%d: %v %+v", len(asked), from, asked)
		}
		k.cancel()
		<-k.done
		if len(k.said()) != 0 {
			t.Errorf("%v", k.said())
		}
	})
}

// A server that is away for a while is asked until the lease is over; then the
// address is given up, and another one is looked for.
func TestLossAndReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		begin := time.Now()
		s.answer = func(q message, at netip.Addr) []message {
			if time.Since(begin) < 2*time.Hour {
				return nil
			}
			a := lends(q, at)
			a[0].yours = netip.MustParseAddr("10.1.2.9")
			return a
		}
		k := keep(t, s, first(t))
		<-time.After(time.Hour + time.Second)
		synctest.Wait()
		if len(k.said()) != 1 || k.said()[0] != "lost 10.1.2.3/24" {
			t.Errorf("after an hour: %v", k.said())
		}
		<-time.After(time.Hour + 5*time.Minute)
		synctest.Wait()
		if len(k.said()) != 2 || k.said()[1] != "apply 10.1.2.9/24" {
			t.Errorf("afterwards: %v", k.said())
		}
		k.cancel()
		<-k.done
	})
}

// A server that takes its word back is obeyed at once; another router is taken
// over; another address in place of the one that was asked for is not.
func TestRenewalsThatDiffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(q message, at netip.Addr) []message {
			a := answer(ack, q)
			a.options[optRouter] = []byte{10, 1, 2, 254}
			wrong := answer(ack, q)
			wrong.yours = netip.MustParseAddr("10.1.2.99")
			return []message{wrong, a}
		}}
		k := keep(t, s, first(t))
		<-time.After(31 * time.Minute)
		synctest.Wait()
		if len(k.said()) != 1 || k.said()[0] != "apply 10.1.2.3/24" {
			t.Errorf("another router: %v", k.said())
		}
		s.becomes(func(q message, at netip.Addr) []message {
			if q.kind() == discover || len(q.options[optServer]) > 0 {
				return lends(q, at)
			}
			return []message{answer(nak, q)}
		})
		<-time.After(31 * time.Minute)
		synctest.Wait()
		if len(k.said()) != 3 || k.said()[1] != "lost 10.1.2.3/24" || k.said()[2] != "apply 10.1.2.3/24" {
			t.Errorf("a refusal: %v", k.said())
		}
		k.cancel()
		<-k.done
	})
}

// The same address of another network takes the place of the one that was had:
// a server cannot have the machine gather them.
func TestAnotherMask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(q message, _ netip.Addr) []message {
			a := answer(ack, q)
			a.options[optMask] = []byte{255, 255, 0, 0}
			return []message{a}
		}}
		k := keep(t, s, first(t))
		<-time.After(61 * time.Minute) // two renewals, of which the second changes nothing
		synctest.Wait()
		if got := k.said(); !slices.Equal(got, []string{"lost 10.1.2.3/24", "apply 10.1.2.3/16"}) {
			t.Errorf("%v", got)
		}
		k.cancel()
		<-k.done
	})
}

// A lease without end is left alone, and the end of the agent ends the wait.
func TestForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: lends}
		l := first(t)
		l.Renew, l.Expire = 0, 0
		k := keep(t, s, l)
		<-time.After(100 * 24 * time.Hour)
		synctest.Wait()
		k.cancel()
		<-k.done
		if asked, _ := s.questions(); len(asked) != 0 || len(k.said()) != 0 {
			t.Errorf("%v %v", asked, k.said())
		}
	})
}
