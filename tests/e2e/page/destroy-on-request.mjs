// Destroys the GPU device of the worker that imports this when told to on the channel "destroy".
const { requestDevice } = GPUAdapter.prototype;
GPUAdapter.prototype.requestDevice = async function (...descriptor) {
  const device = await requestDevice.apply(this, descriptor);
  new BroadcastChannel("destroy").onmessage = () => device.destroy();
  return device;
};
