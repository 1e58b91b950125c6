// SPDX-License-Identifier: MPL-2.0
// The tests that LiveKit's SDK for Node brings along in its package, as they stand there: e2e/rooms_sdks.rs.

export default {
  test: {
    include: ['node_modules/@livekit/rtc-node/src/tests/*.test.ts'],
    exclude: [],
    server: { deps: { inline: [/rtc-node\/src/] } },
    // One of them compares 1.8 MB octet by octet, for seconds in which the others of its process can't go on.
    maxConcurrency: 1,
    fileParallelism: false,
    // They give themselves ten seconds, which is little on a machine that does much else.
    retry: 2,
  },
};
