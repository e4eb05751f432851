package docker

import (
	"context"
	"errors"

	"github.com/moby/moby/client"
)

// MinAPIVersion is the oldest API version that is supported: that of Docker
// 19.03.
const MinAPIVersion = client.MinAPIVersion

// Announced asks the engine which API version it has, whether that is supported
// or not.
func (c *Client) Announced(ctx context.Context) (string, error) {
	limited, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	api, err := client.New(c.opts...)
	if err != nil {
		return "", c.fail(ctx, "ping", err)
	}
	ping, err := api.Ping(limited, client.PingOptions{})
	if limited.Err() != nil {
		err = limited.Err() // not all of moby's errors wrap it
	}
	if err = errors.Join(err, api.Close()); err != nil {
		return "", c.fail(ctx, "ping", err)
	}
	return ping.APIVersion, nil
}
