// The page of LiveKit's components for React, as it comes from npm, with nothing of ours around it.

import '@livekit/components-styles';
import { LiveKitRoom, VideoConference } from '@livekit/components-react';
import { Room } from 'livekit-client';
import { createRoot } from 'react-dom/client';

const query = new URLSearchParams(window.location.search);
const faults = [];
const room = new Room({ adaptiveStream: true, dynacast: true });
Object.assign(window, { room, faults });

createRoot(document.getElementById('root')).render(
  <LiveKitRoom room={room} serverUrl={query.get('url')} token={query.get('token')} connect video audio onError={(error) => faults.push(String(error))}>
    <VideoConference />
  </LiveKitRoom>,
);
