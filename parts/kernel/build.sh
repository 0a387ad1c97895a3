#!/bin/bash
# Builds the User-Mode Linux kernel inside the builder root. /lab/src is this folder, /lab/work a scratch directory,
# /lab/out the result.
#   ARCHIVE  tar of the kernel's source      PATCHES  files of this folder, in order      JOBS  parallel compilers
set -euo pipefail
mkdir /lab/work/linux
cd /lab/work/linux
echo 'Unpacking the source'
# Leave out what this kernel cannot use. Of the excluded drivers it needs only the Kconfig files and Makefiles.
tar -xf "$ARCHIVE" --strip-components=1 --wildcards \
  --exclude='*/Documentation/*/*.rst' --exclude='*/Documentation/devicetree/*.yaml' --exclude='*/tools/testing/*' --exclude='*/samples/*.[ch]' --exclude='*/arch/[!ux]*/*.[chS]' --exclude='*/arch/*/*.dts*' \
  --exclude='*/sound/*.[ch]' --exclude='*/rust/*.rs' \
  --exclude='*/drivers/'{accel,clk,crypto,gpu,hwmon,iio,infiniband,media,pinctrl,platform,staging,usb,video}'/*.[ch]' \
  --exclude='*/drivers/net/'{ethernet,wireless,dsa,phy}'/*.[ch]'
for file in $PATCHES; do
  patch --strip=1 --batch --forward < "/lab/src/$file"
done
KCONFIG_ALLCONFIG=/lab/src/uml.config make ARCH=um allnoconfig
# An option may have been renamed, or may lack a new dependency. Without this check, only a broken lab would show it.
missing=$(grep -E '^CONFIG_.*=' /lab/src/uml.config | grep -vxFf .config || true)
if [ -n "$missing" ]; then
  printf 'This kernel does not take these options of uml.config:\n%s\n' "$missing"
  exit 1
fi
make -j"$JOBS" ARCH=um linux
strip -o /lab/out/linux linux
cp .config /lab/out/config
