package main

import (
	"errors"
	"fmt"
	"strconv"
)

// wholeNumber is a command line flag that takes a whole number.
type wholeNumber struct {
	name  string
	value *int
}

// valueError is what is wrong with a flag's value, told in full.
type valueError struct{ reason string }

func (e *valueError) Error() string { return e.reason }

func (n wholeNumber) String() string {
	if n.value == nil {
		return "0"
	}
	return strconv.Itoa(*n.value)
}

// Set reads the number, in decimal.
func (n wholeNumber) Set(text string) error {
	v, err := strconv.Atoi(text)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return &valueError{fmt.Sprintf("--%s: %s is out of range", n.name, text)}
	case err != nil:
		return &valueError{fmt.Sprintf("--%s: %q is not a whole number", n.name, text)}
	}
	*n.value = v
	return nil
}

// Type is the word for the value in the usage.
func (n wholeNumber) Type() string { return "int" }

// flagError leaves of a command line's error what the user needs.
func flagError(err error) error {
	var e *valueError
	if errors.As(err, &e) {
		return e
	}
	return err
}
