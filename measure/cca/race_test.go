//go:build race

package cca

// mutationStep leaves out bytes where the race detector makes each signature
// ten times as dear. All are tried without it.
const mutationStep = 7
