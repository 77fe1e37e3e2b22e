//go:build !race

package cca

const mutationStep = 1
