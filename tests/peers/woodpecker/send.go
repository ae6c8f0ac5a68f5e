package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"

	"github.com/cenkalti/backoff/v7"
	"github.com/yaronf/httpsign"
)

const maxTries = 3

// send asks until there is an answer, something that asking again cannot mend, or the third failure. The answer is
// decoded into out, unless that is nil.
func send(ctx context.Context, client *httpsign.Client, call call) (int, error) {
	body, err := encoded(call.in)
	if err != nil {
		return 0, err
	}
	try := func() (int, error) {
		status, answer, err := once(ctx, client, call, body)
		switch {
		case err != nil && mayPass(err):
			return status, err
		case err != nil:
			return status, backoff.Permanent(err)
		case status >= 500 && status <= 510: // 511, a captive portal's, is not retried
			return status, fmt.Errorf("response: %d", status)
		case status < 200 || status > 299:
			return status, backoff.Permanent(fmt.Errorf("response: %s", answer))
		case call.out == nil:
			return status, nil
		}
		err = json.NewDecoder(bytes.NewReader(answer)).Decode(call.out)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return status, backoff.Permanent(err) // but an answer cut short, or an empty one, is asked for again
		}
		return status, err
	}
	return backoff.Retry(ctx, try, backoff.WithBackOff(backoff.NewExponentialBackOff()), backoff.WithMaxTries(maxTries))
}

// once signs anew and sends: the same question asked again in another second has another signature.
func once(ctx context.Context, client *httpsign.Client, call call, body io.ReadSeeker) (int, []byte, error) {
	var reader io.Reader
	if body != nil {
		if _, err := body.Seek(0, io.SeekStart); err != nil {
			return 0, nil, err
		}
		reader = body
	}
	request, err := http.NewRequestWithContext(ctx, call.method, call.url, reader)
	if err != nil {
		return 0, nil, err
	}
	if call.in != nil && call.in != nothing {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	return response.StatusCode, answer, err
}

// encoded is the document as Go's encoder writes it: with a newline at its end, and <, > and & escaped.
func encoded(document any) (io.ReadSeeker, error) {
	switch document {
	case nil:
		return nil, nil
	case nothing:
		return bytes.NewReader(nil), nil
	}
	var buffer bytes.Buffer
	if err := json.NewEncoder(&buffer).Encode(document); err != nil {
		return nil, err
	}
	return bytes.NewReader(buffer.Bytes()), nil
}

// mayPass tells failures that another try may mend.
func mayPass(err error) bool {
	var network net.Error
	if errors.As(err, &network) && network.Timeout() {
		return true
	}
	var lookup *net.DNSError
	if errors.As(err, &lookup) && lookup.IsNotFound {
		return true
	}
	for _, passing := range []error{
		net.ErrClosed, io.EOF, io.ErrUnexpectedEOF, syscall.ECONNREFUSED, syscall.ECONNRESET,
	} {
		if errors.Is(err, passing) {
			return true
		}
	}
	return false
}
