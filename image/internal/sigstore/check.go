package sigstore

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A Result is what was found of a signature whose material holds.
type Result struct {
	Identity Identity  // zero for a given key
	Time     time.Time // the earliest at which it was there for certain; zero for a given key without one
	Log      []byte    // ID of the log that recorded it
	Index    int64
	// Unlogged says that nothing shows that the certificate was logged, because
	// the root names no log of certificates.
	Unlogged bool
}

// Check verifies everything around a signature that was verified already: that
// a trusted log recorded this very signature; at which time it was made; that
// the signer's certificate was valid then, was issued by a trusted authority
// and recorded by a trusted log of certificates, if the root names one.
//
// A material with a certificate needs a time from a log's promise or from a
// timestamp. The signer's own clock, and ours, count for nothing.
func (r *Root) Check(ctx context.Context, m Material, s Signed) (Result, error) {
	var res Result
	times, logs, err := r.recorded(m, s, &res)
	if err != nil {
		return res, err
	}
	for _, raw := range m.Timestamps {
		if len(r.stampers) == 0 {
			break // nobody to believe: worth as much as none
		}
		at, err := r.checkTimestamp(ctx, raw, s.Sig)
		if err != nil {
			return res, err
		}
		times = append(times, at)
	}
	for _, at := range times {
		if res.Time.IsZero() || at.Before(res.Time) {
			res.Time = at
		}
	}
	for _, l := range logs { // a proof says no time, so that nobody has asked yet
		if !l.counted(res.Time) {
			return res, errors.New("a log's key did not count when it was signed, or nothing says that it did")
		}
	}
	if s.Certificate == nil {
		return res, nil
	}
	err = r.certified(m, s, times, &res) // before res is read
	return res, err
}

// recorded finds the entries of trusted logs, all of which must hold, and
// returns the times that these logs vouch for, and the logs.
func (r *Root) recorded(m Material, s Signed, res *Result) (times []time.Time, logs []log, err error) {
	for i, e := range m.Entries {
		at, err := r.checkEntry(e)
		if errors.Is(err, errStranger) {
			continue
		}
		if err == nil {
			err = s.matches(e.Body)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("log entry %d: %w", i, err)
		}
		if !at.IsZero() {
			times = append(times, at)
		}
		l, _ := find(r.logs, e.LogID)
		logs, res.Log, res.Index = append(logs, l), e.LogID, e.Index
	}
	if len(logs) == 0 {
		return nil, nil, errors.New("no trusted log recorded it")
	}
	return times, logs, nil
}

func (r *Root) certified(m Material, s Signed, times []time.Time, res *Result) error {
	if len(m.Chain) == 0 || !m.Chain[0].Equal(s.Certificate) {
		return errors.New("the certificate is not the material's")
	}
	if len(times) == 0 {
		return errors.New("nothing says when it was signed: neither a log's promise (SET) nor a trusted timestamp")
	}
	for _, at := range times {
		issuer, err := r.checkChain(m.Chain, at)
		if err != nil {
			return err
		}
		if len(r.ctLogs) == 0 {
			res.Unlogged = true
			continue
		}
		if err := r.checkSCT(s.Certificate, issuer); err != nil {
			return err
		}
	}
	var err error
	res.Identity, err = IdentityOf(s.Certificate)
	return err
}
