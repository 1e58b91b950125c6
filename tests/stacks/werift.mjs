// werift, a WebRTC stack in TypeScript.

import { negotiate, ports, publishes, receive, sender } from './stack.mjs';
import { MediaStreamTrack, RTCPeerConnection, RTCRtpCodecParameters, useNACK, usePLI, useREMB } from 'werift';

const pc = new RTCPeerConnection({
  iceServers: [],
  iceUseIpv6: false,
  codecs: {
    video: [
      new RTCRtpCodecParameters({
        mimeType: 'video/H264',
        clockRate: 90000,
        payloadType: 96,
        rtcpFeedback: [useNACK(), usePLI(), useREMB()],
        parameters: 'profile-level-id=42e01f;packetization-mode=1;level-asymmetry-allowed=1',
      }),
    ],
    audio: [new RTCRtpCodecParameters({ mimeType: 'audio/opus', clockRate: 48000, channels: 2, payloadType: 111 })],
  },
});
pc.connectionStateChange.subscribe((state) => console.log(state));

for (const kind of ['audio', 'video']) {
  if (publishes) {
    const track = new MediaStreamTrack({ kind });
    pc.addTransceiver(track, { direction: 'sendonly' });
    receive(ports[kind], (packet) => track.writeRtp(packet));
  } else {
    const send = sender(ports[kind]);
    const transceiver = pc.addTransceiver(kind, { direction: 'recvonly' });
    transceiver.onTrack.subscribe((track) => {
      track.onReceiveRtp.subscribe((packet) => send(packet.serialize()));
      if (kind === 'video') {
        setInterval(() => transceiver.receiver.sendRtcpPLI(track.ssrc), 1000);
      }
    });
  }
}

await pc.setLocalDescription(await pc.createOffer());
await pc.setRemoteDescription({ type: 'answer', sdp: await negotiate(pc.localDescription.sdp) });
