package main

import (
	"encoding/hex"
	"maps"
	"slices"
	"strconv"

	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
)

// addLog adds an event log to what is shown, if there is one: its events, and
// the registers that it leads to.
func (i *inspection) addLog(raw []byte) error {
	if raw == nil {
		return nil
	}
	log, err := eventlog.Parse(raw)
	if err != nil {
		return err
	}
	i.more[eventlog.ClaimEvents] = log.Claims()
	events := table{head: []string{"REGISTER", "EVENT"}}
	algorithms := map[eventlog.Algorithm]bool{}
	for _, e := range log.Events {
		events.rows = append(events.rows, []string{strconv.Itoa(e.Index), e.Describe()})
		for a := range e.Digests {
			algorithms[a] = true
		}
	}
	registers := table{head: []string{"REGISTER", "BANK", "VALUE"}}
	replayed := map[string]any{}
	for _, a := range slices.Sorted(maps.Keys(algorithms)) {
		values, err := log.Replay(a)
		if err != nil {
			replayed[a.String()] = err.Error()
			registers.rows = append(registers.rows, []string{"none", a.String(), err.Error()})
			continue
		}
		bank := map[string]string{}
		replayed[a.String()] = bank
		for _, n := range slices.Sorted(maps.Keys(values)) {
			value := hex.EncodeToString(values[n])
			bank[strconv.Itoa(n)] = value
			registers.rows = append(registers.rows, []string{strconv.Itoa(n), a.String(), value})
		}
	}
	i.more["registers"] = replayed
	i.tables = append(i.tables, events, registers)
	return nil
}
