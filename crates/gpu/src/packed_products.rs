//! Whether a device multiplies four bytes at a time faster than by other instructions. wgpu does not say, so Vulkan's driver is
//! asked through wgpu's door to it; others can't be.
#![allow(unsafe_code, reason = "the driver's own objects are reached through wgpu's unsafe door alone")]

/// What the driver says of products of four signed bytes with four others.
#[cfg(not(target_vendor = "apple"))]
pub(crate) fn are_fast(adapter: &wgpu::Adapter) -> bool {
    use ash::vk;

    // SAFETY: what it returns is only asked, and not kept.
    let Some(vulkan) = (unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }) else { return false };
    let (shared, device) = (vulkan.shared_instance(), vulkan.raw_physical_device());
    let version =
        shared.instance_api_version().min(vulkan.physical_device_capabilities().properties().api_version);
    if version < vk::API_VERSION_1_3 {
        return false;
    }
    let mut products = vk::PhysicalDeviceShaderIntegerDotProductProperties::default();
    let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut products);
    // SAFETY: the device is one of this instance's, both live while `vulkan` does, and both are of the version that brought the
    // structure that is to be filled.
    unsafe { shared.raw_instance().get_physical_device_properties2(device, &mut properties) };
    products.integer_dot_product4x8_bit_packed_signed_accelerated == vk::TRUE
}

#[cfg(target_vendor = "apple")]
pub(crate) fn are_fast(_: &wgpu::Adapter) -> bool {
    false
}
